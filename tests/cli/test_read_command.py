"""`alens read`: tables and JSON of what heads say, and how it refuses."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from alens import FitRequest, demo, fit_lenses
from alens.fit.settings import FitSettings
from alens.pictures.numbers import signed

from .. import documents
from ..outcomes import refusal
from ..page_data import held

Copy = Callable[[Path], Path]


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
    out = run_alens("read", demo_lenses, " the the the", "--json", "--position", "last").stdout
    assert json.loads(out)[0]["positions"] == [2]


def test_what_is_named_twice_is_read_once(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "He was", "--json", "--layer", "3,0-0,3", "--head", "1,1")
    (reading,) = json.loads(run_alens(*given).stdout)
    assert [(head["layer"], head["head"]) for head in reading["heads"]] == [(0, 1), (3, 1)]
    out = run_alens(*given[:3], "--layer", "3", "--head", "1", "--token", "he", "--token", "he").stdout
    assert out.count("* 'he' ") == 3, out  # by the model, the lens and the unembedding


def test_the_table_shows_the_tokens_of_the_json(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to", "--layer", "3", "--head", "1", "--top", "2")
    out = run_alens(*given, "--compare", "unembedding").stdout
    (reading,) = json.loads(run_alens(*given, "--json").stdout)
    (head,) = reading["heads"]
    assert "3.1" in out
    words = " ".join(out.split())
    for score in head["lens"] + head["unembedding"] + reading["model"][str(reading["positions"][0])]:
        lift = score["lift"]
        times = f"{float(f'{lift:.3g}'):,.0f}x" if lift >= 10 else f"{lift:.1f}x"
        share = 100 * score["probability"]
        assert (
            f"{score['token']!r} {share:.1f}% {times}" in words
            or f"{score['token']!r} {share:.2g}% {times}" in words
        )
    assert f"KL {head['lens_kl']:.2f}, entropy {head['lens_entropy']:.2f}" in out
    assert f"KL {head['unembedding_kl']:.2f}, entropy {head['unembedding_entropy']:.2f}" in out


def test_the_mean_output_stands_beside_the_heads(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to the door", "--position", "all")
    (reading,) = json.loads(run_alens(*given, "--json").stdout)
    assert max(map(len, run_alens(*given).stdout.splitlines())) <= 80
    out = run_alens(*given, "--compare", "unembedding").stdout
    assert max(map(len, out.splitlines())) <= 80
    assert set(map(int, reading["mean_output_kl"])) == set(reading["positions"])
    for kl in reading["mean_output_kl"].values():
        assert f"the mean output, which looks at nothing: KL {kl:.2f} nats\n" in out
    above = [
        head[f"{name}_kl"] > reading["mean_output_kl"][str(head["position"])]
        for head in reading["heads"]
        for name in ("lens", "unembedding")
    ]
    assert 0 < sum(above) < len(above)
    assert out.count("above the mean output") == sum(above)


def test_where_nobody_says_the_mean_output_the_table_and_the_json_say_so(
    run_alens: Any, demo_lenses: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)
    (lenses / "output.safetensors").unlink()
    documents.edit(lenses / "lens.json", lambda body: body["files"].pop("output.safetensors"))
    (reading,) = json.loads(run_alens("read", lenses, "He", "--json").stdout)
    assert reading["mean_output_kl"] == {"0": None}
    out = run_alens("read", lenses, "He").stdout
    assert "the mean output, which looks at nothing: KL - nats" in out
    assert "KL -: the lenses lack the mean output" in " ".join(out.split())
    assert "above the mean output" not in out


def test_lists_are_by_lift_unless_asked_otherwise(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to", "--layer", "3", "--head", "1", "--json")
    by_lift, asked, by_probability = (
        json.loads(run_alens(*given, *rank).stdout)[0]
        for rank in ((), ("--rank", "lift"), ("--rank", "probability"))
    )
    assert by_lift == asked and by_lift["rank"] == "lift" and by_probability["rank"] == "probability"
    for reading, figure in ((by_lift, "lift"), (by_probability, "probability")):
        collected = [score[figure] for score in reading["heads"][0]["lens"]]
        assert collected == sorted(collected, reverse=True)
    assert by_lift["heads"][0]["lens"] != by_probability["heads"][0]["lens"]
    assert by_lift["model"] == by_probability["model"]


def test_a_floor_of_probability_can_be_set(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to", "--json", "--top", "2", "--min-probability")
    for floor in (0.02, 0.0005):
        (reading,) = json.loads(run_alens(*given, str(floor)).stdout)
        assert reading["min_probability"] == floor
        collected = [score["probability"] for head in reading["heads"] for score in head["lens"]]
        assert (min(collected) >= 0.01) == (floor == 0.02)


def test_a_chosen_token_stands_in_table_and_json(run_alens: Any, demo_lenses: Path) -> None:
    given = (
        "read",
        demo_lenses,
        "She went to",
        "--layer",
        "3",
        "--head",
        "1",
        "--token",
        "door",
        "--token",
        " the",
    )
    (reading,) = json.loads(run_alens(*given, "--json").stdout)
    terms = reading["heads"][0]["lens_terms"]
    assert [term["term"] for term in terms] == ["door", " the"]
    out = run_alens(*given).stdout
    assert out.count("* 'door'") == 3 and out.count("* ' the'") == 3  # model, lens, unembedding
    assert f"{100 * terms[1]['probability']:.1f}%" in out and "--token" in out


def test_lenses_of_the_residual_stream_are_named_by_their_site(
    run_alens: Any, residual_lenses: Path, tmp_path: Path
) -> None:
    assert "2 resid_post" in run_alens("read", residual_lenses, "She went to").stdout
    (reading,) = json.loads(run_alens("read", residual_lenses, "She went to", "--json").stdout)
    assert reading["site"] == "resid_post" and [head["head"] for head in reading["heads"]] == [0]
    assert run_alens("read", residual_lenses, "She", "--html", tmp_path / "page.html").code == 0


@pytest.fixture(scope="module")
def residual_lenses(residual_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lenses = tmp_path_factory.mktemp("residual") / "lenses"
    settings = FitSettings(
        site="resid_post", lens="tuned", layers=(2,), steps=2, batch_rows=128, eval_rows=128
    )
    fit_lenses(FitRequest(store=residual_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses


def test_a_page_is_written_instead_of_tables(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, err = run_alens("read", demo_lenses, "He was", "She went to", "--html", page, "--top", "2")
    assert (code, out) == (0, "") and re.search(rf"wrote {page} \([\d.]+ kB\)", err)
    body = held(page.read_text())
    assert [prompt["text"] for prompt in body["prompts"]] == ["He was", "She went to"]
    for prompt in body["prompts"]:  # every position, because nothing else was asked for
        assert [place["position"] for place in prompt["places"]] == list(range(len(prompt["tokens"])))
    code, out, _ = run_alens("read", demo_lenses, "He was", "--html", page, "--position", "-1", "--json")
    assert code == 0 and len(json.loads(out)[0]["positions"]) == 1
    assert len(held(page.read_text())["prompts"][0]["places"]) == 1


def test_where_a_page_cannot_be_is_told_before_the_model_is_loaded(
    run_alens: Any, demo_lenses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.html").write_text("mine")
    loaded: list[Any] = []
    monkeypatch.setattr("alens.model.models.load", lambda *given, **more: loaded.append(given))
    for page, message in (
        ("page.txt", "a page is written as .html"),
        ("none/page.html", "none does not exist"),
        ("mine.html", "is there, and alens did not write it"),
    ):
        assert message in refusal(run_alens("read", demo_lenses, "He", "--html", tmp_path / page), 2)
    assert loaded == [] and (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("compare", "columns"),
    [
        ((), ["lens", "raises", "lowers"]),
        (("--compare", "written"), ["lens", "raises", "lowers"]),
        (("--compare", "unembedding"), ["lens", "unembedding"]),
        (("--compare", "all"), ["lens", "raises", "lowers", "unembedding"]),
        (("--compare", "none"), ["lens"]),
    ],
)
def test_what_stands_beside_the_lens_is_chosen(
    run_alens: Any, demo_lenses: Path, compare: tuple[str, ...], columns: list[str]
) -> None:
    out = run_alens("read", demo_lenses, "He", "--top", "2", *compare, env={"COLUMNS": "120"}).stdout
    (heading,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["head"]]
    assert heading == ["head", *columns]


def test_the_table_shows_what_heads_write(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "He took her hand and she took his hand and", "--position", "all")
    given = (*given, "--top", "3", "--token", "king")
    (reading,) = json.loads(run_alens(*given, "--json").stdout)
    words = " ".join(run_alens(*given).stdout.split())
    suppressing = 0
    for head in reading["heads"]:
        written = head["written"]
        for one in [*written["raised"], *written["lowered"], *written["suppressed"][:3]]:
            assert f"{one['token']!r} {signed(one['logit'], 2)}" in words
        (term,) = head["written_terms"]
        assert f"* 'king' {signed(term['logit'], 2)}" in words and term["term"] == "king"
        suppressing += bool(written["suppressed"])
    assert 0 < suppressing < len(reading["heads"])
    assert words.count("knows, and suppresses") == suppressing + 1  # and once what it means


def test_what_heads_write_is_left_out_with_a_reason(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)
    tensors = load_file(lenses / "layer-03.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != "mean_z"},
        lenses / "layer-03.safetensors",
    )
    digest = hashlib.sha256((lenses / "layer-03.safetensors").read_bytes()).hexdigest()
    documents.edit(
        lenses / "lens.json", lambda body: body["files"]["layer-03.safetensors"].update(sha256=digest)
    )
    given = ("read", lenses, "He", "--layer", "3")
    out, err = run_alens(*given)[1:]
    assert "unembedding" in out and "raises" not in out
    (line,) = [line for line in err.splitlines() if "is left out" in line]
    assert (
        "does not hold the mean z of its heads" in line and "name the cache of the fit with --store" in line
    )
    assert "raises" in run_alens(*given, "--store", demo_cache).stdout
    (reading,) = json.loads(run_alens(*given, "--json").stdout)
    assert "--store" in reading["no_write"] and reading["heads"][0]["written"] is None


@pytest.mark.parametrize("prompt", ["[bold]x[/bold]", ":smile:", "[/]", "\\[red]", "[link=x]y"])
def test_a_prompt_is_shown_as_it_is_and_not_as_markup(run_alens: Any, demo_lenses: Path, prompt: str) -> None:
    code, out, err = run_alens("read", demo_lenses, prompt, "--layer", "0", "--head", "1")
    assert code == 0, err
    assert f"after {prompt!r}" in out


def test_a_terminal_of_ascii_loses_no_result(run_alens_process: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "h\u00e9", "--layer", "3", "--head", "1", "--top", "1")
    code, out, err = run_alens_process(*given, env={"PYTHONIOENCODING": "ascii"})
    assert code == 0 and "alens: " not in err, err
    assert "after 'h\\xe9'" in out


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
        (("He", "--position", ""), "position '' is not a list of numbers"),
        (("He", "--position", "x"), "position 'x' is not a list of numbers"),
        (("He", "--top", "5000"), "top is 5000: it must be in 1 .. 4096"),
        (("He", "--top", "0"), "0 is not in the range x>=1"),
        (("He", "--rank", "best"), "'best' is not one of 'lift', 'probability'"),
        (("He", "--min-probability", "0"), "0.0 is not in the range 0<x<1"),
        (("He", "--token", "antidisestablishmentarianism"), "take their first tokens with --first-token"),
        (("He", "--token", ""), "a term is empty"),
        (("He", "--device", "tpu"), "device 'tpu' is unknown"),
        (("He", "--model", "/nowhere/model"), "/nowhere/model does not exist"),
        ((), "no prompt was given: write one, or name a file"),
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
    assert f"{other} has other weights than the model of {demo_lenses} (demo): say with --model" in line


def test_a_reading_says_where_heads_look(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to the old house", "--heads", "3.1", "--position")
    reading = json.loads(run_alens(*given, "1,-1", "--json").stdout)[0]
    second, last = (head["attention"] for head in reading["heads"])
    assert reading["no_attention"] is None
    assert [len(second[name]) for name in ("weights", "moved")] == [2, 2]
    assert len(last["weights"]) == len(reading["tokens"]) and sum(last["weights"]) == pytest.approx(
        1, abs=1e-4
    )
    for attention, option, words in (
        (last["weights"], (), "looks at"),
        (last["moved"], ("moved",), "moves from"),
    ):
        text = run_alens(*given, "-1", *(("--attention", *option) if option else ())).stdout
        place = max(range(len(attention)), key=attention.__getitem__)
        share = 100 * attention[place] / sum(attention)
        assert re.search(rf"{words} {place} {reading['tokens'][place]!r} {share:.1f}%", text)
    assert not re.search(r"looks at \d", run_alens(*given, "-1", "--attention", "none").stdout)


def test_lenses_of_the_residual_stream_look_at_nothing(run_alens: Any, residual_lenses: Path) -> None:
    (reading,) = json.loads(run_alens("read", residual_lenses, "She went", "--json").stdout)
    assert reading["no_attention"] == "these are lenses of resid_post, not of heads"
    assert all(head["attention"] is None for head in reading["heads"])
    assert not re.search(r"looks at \d", run_alens("read", residual_lenses, "She went").stdout)
