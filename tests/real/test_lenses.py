"""Lenses of SmolLM2: what they are worth on held-out stories, and what they say about a prompt."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import EvaluateSettings, HeadReader, evaluate, load_lenses, open_cache
from alens.heads import Heads
from alens.rows import moments

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


def test_what_a_head_writes_has_the_sign_of_what_the_model_loses_without_it(
    real_reader: HeadReader, real_cache: Path, plain_model: Any
) -> None:
    """23.0 moves both names, 23.3 lowers the repeated one."""
    terms = real_reader.terms(["Mary", "John"])
    reading = real_reader.read(PROMPT, heads="23.0,23.3", terms=terms)
    mover, suppressor = reading.heads
    assert [term.logit > 0.3 for term in mover.written_terms] == [True, True]
    assert suppressor.written_terms[1].logit < -1
    ids = torch.tensor([real_reader.tokens(PROMPT)])
    output = plain_model.model.layers[23].self_attn.o_proj
    (mean_HE,) = moments.mean_z(open_cache(real_cache), Heads.grouped([(23, 0), (23, 3)])).values()
    whole_V = plain_model(ids).logits[0, -1]
    for mean_E, head in zip(mean_HE, reading.heads, strict=True):
        mine = slice(64 * head.head, 64 * head.head + 64)

        def ablated(module: Any, given: Any, mine: slice = mine, mean_E: torch.Tensor = mean_E) -> Any:
            return (
                given[0].index_copy(
                    2, torch.arange(mine.start, mine.stop), mean_E.expand(1, ids.shape[1], 64)
                ),
            )

        hook = output.register_forward_pre_hook(ablated)
        lost_V = whole_V - plain_model(ids).logits[0, -1]
        hook.remove()
        for term in head.written_terms:
            effect = float(lost_V[term.id] - lost_V.mean())
            assert abs(term.logit) < 0.3 or (effect > 0) == (term.logit > 0), (head.head, term, effect)


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
