"""What effect lenses say on a prompt, beside what the model itself loses without a head."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import FitRequest, HeadReader, fit_lenses, load_lenses
from alens.errors import RequestError
from alens.fit.settings import FitSettings
from alens.lens.effect_lenses import EffectLenses, load_effect_lenses
from alens.model.edits import Edit, run_edited
from alens.rows.direct_write import centred_logits

from ..outcomes import refusal

PROMPT = "The old man opened the door and said"


@pytest.fixture(scope="module")
def effect(demo_effect_lenses: Path) -> EffectLenses:
    return load_effect_lenses(demo_effect_lenses)


def test_the_lists_are_near_what_the_model_loses_without_the_head(
    demo_lenses: Path, effect: EffectLenses
) -> None:
    reader = HeadReader(load_lenses(demo_lenses), effect=effect, device="cpu")
    reading = reader.read(PROMPT, positions=range(1, 8), top=20, terms=reader.terms(["door"]))
    tokens_1T = torch.tensor([reader.tokens(PROMPT)])
    full_TD = run_edited(reader.model, tokens_1T, [])[0]
    agreeing, all_tokens = 0, 0
    for head in (1, 4):
        _, mean_1E = effect.maps(3, [head])
        edit = Edit(layer=3, head=head, z=lambda z, mean_1E=mean_1E: mean_1E.expand_as(z))  # type: ignore[misc]
        lost_TD = full_TD - run_edited(reader.model, tokens_1T, [edit])[0]
        lost_TV = centred_logits(lost_TD, reader.model.W_U_DV)
        for of_head in reading.heads:
            if (of_head.layer, of_head.head) == (3, head):
                assert of_head.effect is not None
                assert [term.id for term in of_head.effect_terms] == [
                    term.id for term in of_head.written_terms
                ]
                said = [*of_head.effect.raised, *of_head.effect.lowered]
                logits = [float(lost_TV[of_head.position, one.id]) for one in said]
                agreeing += sum(
                    (one.logit > 0) == (logit > 0) for one, logit in zip(said, logits, strict=True)
                )
                all_tokens += len(said)
                assert of_head.effect.raised[0].logit > 0 > of_head.effect.lowered[0].logit
    assert agreeing > 0.8 * all_tokens
    assert all(one.effect is None and one.effect_terms == [] for one in reading.heads if one.layer == 0)


def test_the_command_shows_it_where_it_was_fitted(
    demo_lenses: Path, demo_effect_lenses: Path, run_alens: Any
) -> None:
    line = ("read", demo_lenses, PROMPT, "--effect", demo_effect_lenses, "--token", "door", "--device", "cpu")
    outcome = run_alens(*line)
    assert outcome.code == 0, outcome
    assert "effect raises" in outcome.stdout and "what would be" in outcome.stdout
    assert "raises, lowers: what the head writes" in " ".join(outcome.stdout.split())
    only = run_alens(*line, "--compare", "effect")
    assert "effect raises" in only.stdout and "what the head writes" not in only.stdout
    assert "effect raises" not in run_alens(*line, "--compare", "written").stdout
    heads = json.loads(run_alens(*line, "--json").stdout)[0]["heads"]
    for head in heads:
        if head["layer"] == 3:
            assert {"token", "id", "logit"} == set(head["effect"]["raised"][0])
            assert head["effect_terms"][0]["term"] == "door"
        else:
            assert head["effect"] is None and head["effect_terms"] == []


def test_what_cannot_be_shown_is_refused(
    demo_lenses: Path, demo_effect_lenses: Path, residual_cache: Path, tmp_path: Path, run_alens: Any
) -> None:
    says = refusal(run_alens("read", demo_lenses, PROMPT, "--compare", "effect"))
    assert says == "--compare effect needs effect lenses: name them with --effect"
    says = refusal(run_alens("read", demo_lenses, PROMPT, "--effect", demo_lenses), after_log=True)
    assert "holds linear lenses, not effect lenses" in says
    of_residual = FitSettings(lens="tuned", site="resid_post", layers=(1,), steps=1, batch_rows=64)
    lenses = tmp_path / "tuned"
    fit_lenses(FitRequest(store=residual_cache, lenses=lenses, settings=of_residual, device="cpu"))
    with pytest.raises(RequestError, match="holds lenses of resid_post: leave it out"):
        HeadReader(load_lenses(lenses), effect=load_effect_lenses(demo_effect_lenses), device="cpu")
