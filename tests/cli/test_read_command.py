"""`alens read`: tables and JSON of what heads say, and how it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from alens import demo

Copy = Callable[[Path], Path]


def refusal(outcome: Any, code: int) -> str:
    """The one line of a run that ended with `code`."""
    assert outcome.code == code, outcome
    assert outcome.stdout == "" and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("alens: ")
    return str(outcome.stderr).removeprefix("alens: ")


def test_json_has_a_reading_a_prompt(run_alens: Any, demo_lenses: Path) -> None:
    code, out, err = run_alens("read", demo_lenses, "He was", "She went to", "--json", "--top", "3")
    assert code == 0, err
    body = json.loads(out)
    assert [reading["prompt"] for reading in body] == ["He was", "She went to"]
    for reading in body:
        assert [(head["layer"], head["head"]) for head in reading["heads"]] == [
            (0, 1),
            (0, 4),
            (3, 1),
            (3, 4),
        ]
        assert all(len(head["lens"]) == len(head["unembedding"]) == 3 for head in reading["heads"])


def test_all_positions_can_be_shown(run_alens: Any, demo_lenses: Path) -> None:
    out = run_alens("read", demo_lenses, "She went to", "--json", "--position", "all").stdout
    (reading,) = json.loads(out)
    assert reading["positions"] == list(range(len(reading["tokens"])))


def test_positions_count_from_either_end(run_alens: Any, demo_lenses: Path) -> None:
    out = run_alens("read", demo_lenses, " the the the", "--json", "--position", "0,-1").stdout
    assert json.loads(out)[0]["positions"] == [0, 2]


def test_the_table_shows_the_tokens_of_the_json(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to", "--layer", "3", "--head", "1", "--top", "2")
    out = run_alens(*given).stdout
    (reading,) = json.loads(run_alens(*given, "--json").stdout)
    (head,) = reading["heads"]
    assert "3.1" in out
    for score in head["lens"] + head["unembedding"] + reading["model"][str(reading["positions"][0])]:
        assert f"{score['token']!r} {100 * score['probability']:.1f}%" in out


def test_the_unembedding_can_be_left_out(run_alens: Any, demo_lenses: Path) -> None:
    assert "unembedding" in run_alens("read", demo_lenses, "He").stdout
    assert "unembedding" not in run_alens("read", demo_lenses, "He", "--compare", "none").stdout


@pytest.mark.parametrize("prompt", ["[bold]x[/bold]", ":smile:", "[/]", "\\[red]", "[link=x]y"])
def test_a_prompt_is_shown_as_it_is_and_not_as_markup(run_alens: Any, demo_lenses: Path, prompt: str) -> None:
    code, out, err = run_alens("read", demo_lenses, prompt, "--layer", "0", "--head", "1")
    assert code == 0, err
    assert f"after {prompt!r}" in out


def test_an_emoji_can_be_read(run_alens: Any, demo_lenses: Path) -> None:
    assert run_alens("read", demo_lenses, "a 😢 b", "--layer", "0", "--head", "1").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "--layer", "0"), "the prompt is empty"),
        ((" the" * 300,), "has 300 tokens: demo sees 256 at most"),
        (("He", "--layer", "2"), "no lens for layer 2: it has layers 0, 3"),
        (("He", "--head", "0"), "no lens for head 0: it has heads 1, 4"),
        (("He", "--position", "9"), "position 9 does not exist"),
        (("He", "--position", "x"), "position 'x' is not a list of numbers"),
        (("He", "--top", "5000"), "top is 5000: it must be in 1 .. 4096"),
        (("He", "--top", "0"), "0 is not in the range x>=1"),
        (("He", "--device", "tpu"), "device 'tpu' is unknown"),
        (("He", "--model", "/nowhere/model"), "/nowhere/model does not exist"),
        ((), "Missing argument 'PROMPT...'"),
        (("He\udcff",), "is not UTF-8 text"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("read", demo_lenses, *arguments), 2)


def test_a_bad_prompt_among_good_ones_prints_nothing(run_alens: Any, demo_lenses: Path) -> None:
    assert "the prompt is empty" in refusal(run_alens("read", demo_lenses, "He", ""), 2)


def test_lenses_that_are_none_are_refused(run_alens: Any, tmp_path: Path) -> None:
    assert "holds no lenses" in refusal(run_alens("read", tmp_path / "none", "He"), 2)


def test_the_model_may_be_elsewhere(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(demo.MODEL, tmp_path / "elsewhere")
    assert run_alens("read", demo_lenses, "He", "--layer", "0", "--model", moved).code == 0


def test_another_models_weights_are_refused(run_alens: Any, demo_lenses: Path, copy_of: Copy) -> None:
    other = copy_of(demo.MODEL)
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[-1]
    save_file({**weights, name: weights[name] * 2}, other / "model.safetensors", {"format": "pt"})
    line = refusal(run_alens("read", demo_lenses, "He", "--model", other), 2)
    assert "has other weights: lenses read the model they were fitted on" in line
