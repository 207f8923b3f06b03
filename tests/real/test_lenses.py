"""Lenses of SmolLM2: what they are worth on held-out stories, and what they say about a prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens import EvaluateSettings, HeadReader, evaluate, load_lenses, open_cache

from ..page_data import held

pytestmark = pytest.mark.real

PROMPT = "When Mary and John went to the store, John gave a drink to"


def test_held_out_figures_tell_strong_heads_from_weak_ones(real_lenses: Path, real_cache: Path) -> None:
    result = evaluate(
        load_lenses(real_lenses), open_cache(real_cache), settings=EvaluateSettings(rows=512, resamples=200)
    )
    assert result.teacher == "exact" and result.intervals_over == "documents"
    gains = {
        (layer, head): result.mean_output.kl - figures.kl
        for layer, heads in result.lens.items()
        for head, figures in enumerate(heads)
    }
    assert len(gains) == 18
    assert gains[23, 3] > 0.1 > gains[18, 7] > -0.01
    assert result.comparisons["mean-output"][23][3].kl.surely_better
    assert result.wins("unembedding").better == 18


def test_the_table_and_the_map_are_drawn(
    run_alens: Any, real_lenses: Path, real_cache: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "heads.png"
    given = ("--layers", "23", "--rows", "128", "--heat-map", picture)
    code, out, err = run_alens("eval", real_lenses, real_cache, *given)
    assert code == 0, err
    assert "23.3 " in out and "mean output" in out and picture.read_bytes().startswith(b"\x89PNG")


def test_a_head_that_moves_names_names_the_right_one(real_reader: HeadReader) -> None:
    terms = [*real_reader.terms(["Mary"]), *real_reader.terms(["John"])]
    reading = real_reader.read(PROMPT, layers=[23], heads=[0], terms=terms)
    assert reading.model[reading.positions[-1]][0].token == " Mary"
    (head,) = reading.heads
    mary, john = head.lens_terms
    assert mary.lift is not None and mary.lift > 500 and mary.probability > 10 * john.probability
    assert head.lens[0].token == " Mary" and head.lens_kl < 3


def test_the_page_shows_tokens_as_they_stand_in_a_text(
    run_alens: Any, real_lenses: Path, tmp_path: Path
) -> None:
    page = tmp_path / "reading.html"
    code, out, err = run_alens("read", real_lenses, PROMPT, "--html", page, "--json")
    assert code == 0, err
    texts = [text for text, _ in held(page.read_text())["tokens"]]
    assert " Mary" in texts and not any("\u0120" in text for text in texts)
    (reading,) = json.loads(out)
    assert len(reading["heads"]) == 18 * len(reading["tokens"])
