"""`alens inject`: tables, JSON and curves, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import load_lenses, open_cache
from alens.model import edited_runs, partial_pass
from alens.model.edits import Edit, run_edited
from alens.reading.lensed_model import LensedModel
from alens.store.cache_reader import Cache

from ..outcomes import refusal

PROMPT = "The door opened and"
AT = ("--layer", "3", "--head", "4")
QUICK = ("--strength", "-2,0,2", "--random", "1")
SMALL_TEXT = ("--text", "demo", "--text-tokens", "300")


def test_one_line_says_what_is_left_out_of_a_text(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "b.zip", "README.txt"):
        (tmp_path / name).write_text("The door opened and she went in.\n" * 50)
    given = (demo_lenses, PROMPT, *AT, *QUICK, "--text", tmp_path, "--text-tokens", "300", "--tokens", "she")
    code, _, err = run_alens("inject", *given)
    assert code == 0, err
    assert [line for line in err.splitlines() if "left out" in line] == [
        f"left out of {tmp_path}: 1 .zip, 1 README.txt"
    ]


def test_json_has_every_strength_of_every_direction(run_alens: Any, demo_lenses: Path) -> None:
    given = (demo_lenses, PROMPT, "It was", *AT, *QUICK, *SMALL_TEXT, "--tokens", "she", "--tokens", ",")
    code, out, err = run_alens("inject", *given, "--json")
    assert code == 0, err
    body = json.loads(out)
    assert [term["text"] for term in body["terms"]] == ["she", ","]
    assert body["clean"]["tokens"] == 255 + 43 and body["unit"]["rows_of"] == "text"
    assert [curve["by"] for curve in body["curves"]] == ["lens", "unembedding"]
    assert [curve["by"] for curve in body["random"]] == ["random 1"]
    for curve in body["curves"] + body["random"]:
        assert [point["strength"] for point in curve["points"]] == [-2, 0, 2]
        assert all(len(point["change"]["prompts"]) == 2 for point in curve["points"])


def test_each_strength_runs_once_and_0_is_the_model_as_it_is(
    run_alens: Any, demo_lenses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    def counted(*arguments: Any) -> Any:
        nonlocal runs
        runs += 1
        return partial_pass.edited_pass(*arguments)

    monkeypatch.setattr(edited_runs, "edited_pass", counted)
    given = (demo_lenses, PROMPT, *AT, *SMALL_TEXT, "--tokens", "she", "--by", "lens", "--random", "1")
    body = json.loads(run_alens("inject", *given, "--strength", "1,0,1,0", "--json").stdout)
    for one, zero in (curve["points"] for curve in body["curves"] + body["random"]):
        assert (one["strength"], zero["strength"], zero["norm"]) == (1, 0, 0)
        assert zero["change"]["prompts"] == body["clean"]["prompts"]
        assert zero["change"]["text"] == {"nats": body["clean"]["nats"], "added": 0, "interval": [0, 0]}
    batches = 2  # of the text
    assert runs == (1 + batches) * len(["lens", "random 1"])


def test_the_unembeddings_direction_raises_its_token(run_alens: Any, demo_lenses: Path) -> None:
    given = (demo_lenses, PROMPT, *AT, *QUICK, "--tokens", "she", "--by", "unembedding", "--json")
    (curve,) = json.loads(run_alens("inject", *given).stdout)["curves"]
    low, zero, high = (point["change"]["prompts"][0]["probability"] for point in curve["points"])
    assert low < zero / 10 and high > zero * 10


def test_the_tables_show_the_json(run_alens: Any, demo_lenses: Path) -> None:
    given = ("inject", demo_lenses, PROMPT, *AT, *QUICK, *SMALL_TEXT, "--tokens", "she")
    code, out, err = run_alens(*given)
    assert code == 0, err
    body = json.loads(run_alens(*given, "--json").stdout)
    assert f"strength 1 adds norm {body['unit']['norm']:.4g}" in out
    assert f"{body['clean']['nats']:.3f}" in out and "298 tokens in 2 windows" in " ".join(out.split())
    for curve in body["curves"]:
        for point in curve["points"]:
            assert f"{point['change']['text']['added']:+.3f} (" in out
            assert f") {point['change']['prompts'][0]['kl']:.3f}" in out
    assert "as it is: " in out and "lens +2: " in out and "unembedding -2: " in out


def test_a_file_may_hold_the_terms(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("# who\nshe\n\nhe\n")
    given = (demo_lenses, PROMPT, *AT, *QUICK, "--tokens-file", path, "--tokens", "her", "--json")
    body = json.loads(run_alens("inject", *given).stdout)
    assert [term["text"] for term in body["terms"]] == ["her", "she", "he"]


def test_a_term_of_several_tokens_counts_by_its_first_one_on_request(
    run_alens: Any, demo_lenses: Path
) -> None:
    given = ("inject", demo_lenses, PROMPT, *AT, *QUICK, "--tokens", "antidisestablishment")
    assert "are not a single token of this model" in refusal(run_alens(*given))
    assert run_alens(*given, "--first-token").code == 0


def test_curves_are_drawn(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    given = ("inject", demo_lenses, PROMPT, *AT, *QUICK, *SMALL_TEXT, "--tokens", "she", "--plot", path)
    code, _, err = run_alens(*given)
    assert code == 0, err
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_heads_are_taken_away_one_by_one_and_together(run_alens: Any, demo_lenses: Path, kind: str) -> None:
    given = ("inject", demo_lenses, PROMPT, "--layer", "0,2", "--head", "3", "--ablate", kind, *SMALL_TEXT)
    code, out, err = run_alens(*given, "--tokens", "she")
    assert code == 0, err
    body = json.loads(run_alens(*given, "--json").stdout)
    assert [one["heads"] for one in body["ablations"]] == [[[0, 3]], [[2, 3]], [[0, 3], [2, 3]]]
    for name, one in zip(("0.3", "2.3", "all 2"), body["ablations"], strict=True):
        assert name in out and f"{one['change']['prompts'][0]['kl']:.4f}" in out
        assert f"{one['change']['text']['added']:+.4f}" in out


def test_means_are_those_of_the_lenses_or_of_a_cache_and_need_no_text(
    run_alens: Any, demo_lenses: Path, demo_cache: Path
) -> None:
    given = ("inject", demo_lenses, PROMPT, "--head", "3.1,3.4", "--ablate", "mean", "--json")
    by_lenses = json.loads(run_alens(*given).stdout)
    by_cache = json.loads(run_alens(*given, "--store", demo_cache).stdout)
    assert by_lenses["means_of"] == str(demo_lenses) and by_cache["means_of"] == str(demo_cache)
    model = LensedModel(load_lenses(demo_lenses), device="cpu").model
    ids = model.tokenizer.encode(PROMPT, add_special_tokens=False).ids
    clean_V, without_V = (
        (run_edited(model, torch.tensor([ids]), edits)[0, -1] @ model.W_U_DV + model.b_U_V).log_softmax(-1)
        for edits in ([], [Edit(layer=3, head=4, z=mean_of(open_cache(demo_cache)))])
    )
    kl = float((clean_V.exp() * (clean_V - without_V)).sum())
    for body in (by_lenses, by_cache):  # the lenses were fitted on all of the cache but its last shards
        assert [one["heads"] for one in body["ablations"]] == [[[3, 1]], [[3, 4]], [[3, 1], [3, 4]]]
        assert body["clean"]["nats"] is None
    assert by_cache["ablations"][1]["change"]["prompts"][0]["kl"] == pytest.approx(kl, rel=1e-2)
    assert by_lenses["ablations"][1]["change"]["prompts"][0]["kl"] == pytest.approx(kl, rel=0.2)
    assert (
        run_alens(
            "inject", demo_lenses, PROMPT, "--head", "2.3", "--ablate", "mean", "--store", demo_cache
        ).code
        == 0
    )


def mean_of(cache: Cache) -> Any:
    """The change of z of head 3.4 to its mean over the cache."""
    z_NE = torch.from_numpy(cache.z(3, slice(None)).astype("float32"))[:, 4]
    later_N = torch.from_numpy(cache.read("rows/position", slice(None)) > 0)
    mean_E = z_NE[later_N].mean(0)
    return lambda z_BTE: mean_E.expand_as(z_BTE)


@pytest.mark.parametrize("prompt", ["[bold]x[/bold]", ":smile:", "[/]"])
def test_a_prompt_is_shown_as_it_is(run_alens: Any, demo_lenses: Path, prompt: str) -> None:
    given = (demo_lenses, prompt, *AT, "--strength", "1", "--random", "0", "--tokens", "she")
    code, out, err = run_alens("inject", *given)
    assert code == 0, err
    assert f"after {prompt!r}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PROMPT, *AT), "no tokens were named: give --tokens TERM, or --ablate"),
        ((PROMPT, "--head", "4", "--tokens", "she"), "head 4 is in every layer: say which with --layer"),
        ((PROMPT, "--head", "3.1,3.4", "--tokens", "she"), "added at one head: name one --layer"),
        ((PROMPT, "--head", "3.1", "--layer", "0", "--tokens", "she"), "head 3.1 is not in layers 0"),
        ((PROMPT, "--layer", "3", "--tokens", "she"), "no head was named"),
        ((PROMPT, "--layer", "3", "--head", "1,4", "--tokens", "she"), "added at one head: name one --layer"),
        ((PROMPT, "--layer", "2", "--head", "4", "--tokens", "she"), "no lens for layer 2"),
        ((PROMPT, *AT, "--tokens", "zzzqqqx"), "1 of 1 terms are not a single token"),
        ((PROMPT, *AT, "--tokens", " "), "a term is empty"),
        ((PROMPT, *AT, "--tokens-file", "/nowhere"), "cannot read /nowhere"),
        ((PROMPT, *AT, "--tokens", "she", "--strength", "1,x"), "'1,x' is not a list of numbers"),
        (
            (PROMPT, *AT, "--tokens", "she", "--strength", "nan"),
            "strength is (nan,): it must be a finite number",
        ),
        ((PROMPT, *AT, "--tokens", "she", "--text", "/nowhere.txt"), "/nowhere.txt does not exist"),
        ((PROMPT, *AT, "--tokens", "she", "--plot", "curve.pdf"), "curves are written as .png"),
        ((PROMPT, *AT, "--tokens", "she", "--plot", "/nowhere/c.png"), "/nowhere does not exist"),
        (("", *AT, "--tokens", "she"), "the prompt is empty"),
        ((" the", *AT, "--tokens", "she"), "no position after the first: give a longer prompt, or --text"),
        ((PROMPT, "--head", "2.4", "--ablate", "mean"), "needs the mean z of head 2.4, which"),
        ((PROMPT, *AT, "--ablate", "zero", "--store", "x"), "--store gives the means of --ablate mean"),
        ((PROMPT, *AT, "--tokens", "she", "--store", "x"), "--store gives the means of --ablate mean"),
        ((PROMPT, *AT, "--ablate", "zero", "--strength", "1"), "--strength says what is added"),
        ((PROMPT, *AT, "--ablate", "zero", "--effect", "lenses"), "--effect says what is added"),
        ((PROMPT, *AT, "--tokens", "she", "--effect", "lenses"), "nothing is read by them: say --by effect"),
        (
            (PROMPT, *AT, "--tokens", "she", "--by", "effect"),
            "by effect needs effect lenses of the same model",
        ),
        ((PROMPT, "--layer", "3", "--head", "6", "--ablate", "zero"), "demo has no head 3.6"),
        ((PROMPT, "--layer", "3", "--ablate", "zero"), "no head was named"),
        ((*AT, "--tokens", "she"), "no prompt was given: write one, or name a file"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("inject", demo_lenses, *arguments))


def test_an_empty_file_of_text_or_terms_is_refused(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    given = ("inject", demo_lenses, PROMPT, *AT)
    assert "holds fewer than two tokens" in refusal(run_alens(*given, "--tokens", "she", "--text", empty))
    assert "holds no term" in refusal(run_alens(*given, "--tokens-file", empty))
