"""Families of heads on SmolLM2: what is known of two of its layers."""

from pathlib import Path

import pytest

from alens.job.progress import silent
from alens.model import models
from alens.studies.families.attention_scores import attention_scores
from alens.studies.families.relations import SHIPPED, read_relations, relation_tokens
from alens.studies.families.repeated_tokens import RepeatedTokens, sampled_tokens
from alens.studies.families.token_maps import token_map_scores

pytestmark = pytest.mark.real

LAYERS = (18, 23)


def test_known_heads_come_first(smollm2: Path) -> None:
    """18.6 is an induction head and 18.8 rests on the first token; 23.0 and 23.1 move names, 23.3 lowers them."""
    model = models.load(models.find(str(smollm2), hash_weights=False), dtype="float32", device="cpu")
    repeated = RepeatedTokens(model, 32, seed=0)
    scores = attention_scores(model, repeated, LAYERS, sequences=2, batch_size=2, report=silent)
    capitals = relation_tokens(read_relations([SHIPPED])[0], model.tokenizer)
    sample = sampled_tokens(model, 64, seed=0)
    scores |= token_map_scores(model, LAYERS, sample, {"capitals": capitals}, top_k=10, report=silent)
    above = {
        family: {place: score - control for place, (score, control) in by_head.items()}
        for family, by_head in scores.items()
    }
    first = {family: max(by_head, key=by_head.__getitem__) for family, by_head in above.items()}
    assert first["induction"] == (18, 6) and above["induction"][18, 6] > 0.7
    assert first["first-token"] in ((18, 8), (18, 7)) and above["first-token"][18, 8] > 0.7
    assert min(above["copying"][23, 0], above["copying"][23, 1]) > 0.2
    assert first["suppression"] == (23, 3) and above["suppression"][23, 3] > 0.4
    assert first["capitals"][0] == 23 and above["capitals"][first["capitals"]] > 0.6
