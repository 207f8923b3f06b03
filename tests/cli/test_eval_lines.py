"""`alens eval` of many heads: a summary, then a line each for the first ones, whole at 80 and at 120 columns."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alens import EvaluateSettings, evaluate, load_lenses, open_cache
from alens.cli.eval_table import show_evaluation
from alens.evaluation.result import BaselineComparison, Evaluation
from alens.evaluation.settings import HeadSort
from alens.heads import Heads

from ..outcomes import refusal


@pytest.fixture(scope="module")
def small(demo_lenses: Path, demo_cache: Path) -> Evaluation:
    settings = EvaluateSettings(rows=96, resamples=20, baselines=("unembedding",))
    return evaluate(load_lenses(demo_lenses), open_cache(demo_cache), settings=settings)


@pytest.fixture(scope="module")
def large(small: Evaluation) -> Evaluation:
    """The same, as if for 270 heads: head 12.5 gains 9 nats, and each one after it 0.01 less; 7.1 has the lowest KL."""
    heads = Heads.grid(range(30), tuple(range(9)))
    first, compared = small.lens[0][0], small.comparisons["mean-output"][0][0]

    def gaining(layer: int, head: int) -> BaselineComparison:
        nats = 9 - 0.01 * ((layer * 9 + head - (12 * 9 + 5)) % 270)
        return replace(compared, kl=replace(compared.kl, difference=-nats))

    lens = {layer: [replace(first, kl=10 + layer + head / 10) for head in range(9)] for layer in range(30)}
    lens[7][1] = replace(first, kl=0.5)
    plain = {layer: [small.unembedding[0][0]] * 9 for layer in range(30)}
    gains = {layer: [gaining(layer, head) for head in range(9)] for layer in range(30)}
    return replace(
        small,
        heads=heads,
        says_nothing={layer: [head == 3 for head in range(9)] for layer in range(30)},
        of_heads={"lens": lens, "unembedding": plain},
        of_layers={"logit-lens": dict.fromkeys(range(30), first)},
        comparisons={"mean-output": gains, "unembedding": gains},
    )


def heads_of(lines: list[str]) -> list[str]:
    return [match[1] for line in lines if (match := re.match(r" *(\d+\.\d)!? ", line))]


@pytest.mark.parametrize("width", [80, 120])
def test_a_summary_and_a_screenful(
    large: Evaluation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show_evaluation(large, ("kl", "ce", "top1", "top10"))
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width and len(lines) <= 60
    assert "270 lenses: 270 beat the mean output" in text and "median +7.655, best +9.000 (12.5)" in text
    assert heads_of(lines) == [f"{n // 9}.{n % 9}" for n in range(113, 133)]
    assert (
        "Sorted by the gain over the mean output; 250 more of 270: --all; other orders: --sort kl|layer."
        in text
    )
    assert "Logit Lens mean " in text and "(0.3, 1.3," in text and "11.3, and 18 more)" in text
    show_evaluation(large, ("kl",), all_heads=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(heads_of(lines)) == 270 and sum(line.startswith("Logit Lens ") for line in lines) == 30


@pytest.mark.parametrize(("sort", "first"), [("kl", "7.1"), ("layer", "0.0"), ("gain", "12.5")])
def test_heads_are_sorted(
    large: Evaluation, capsys: pytest.CaptureFixture[str], sort: HeadSort, first: str
) -> None:
    show_evaluation(large, ("kl",), sort=sort)
    assert heads_of(capsys.readouterr().out.splitlines())[0] == first


def test_there_must_be_something_to_sort_by(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    outcome = run_alens("eval", demo_lenses, demo_cache, "--sort", "effect")
    assert f"has no effects to sort by: `alens effects {demo_cache}` measures them" in refusal(outcome)


def test_all_heads_are_shown_on_request(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    given = ("eval", demo_lenses, demo_cache, "--rows", "64", "--baselines", "unembedding")
    out = run_alens(*given, "--all", "--sort", "layer").stdout
    assert heads_of(out.splitlines()) == ["0.1", "0.4", "3.1", "3.4"]
