"""Planted heads come first in their families, with and without BOS; scores depend on the settings alone."""

from pathlib import Path
from typing import Any

import pytest

from alens import FamilySettings, score_heads
from alens.errors import RequestError
from alens.studies.families.result import HeadFamilies

from .planted_heads import (
    DUPLICATE,
    FIRST,
    INDUCTION,
    LENGTH,
    NUM_HEADS,
    PREVIOUS,
    planted_model,
)

FEW = {"sequences": 4, "length": LENGTH}
PLANTED = {
    "previous-token": PREVIOUS,
    "duplicate-token": DUPLICATE,
    "induction": INDUCTION,
    "first-token": FIRST,
}


def scored(model: Path, **settings: Any) -> HeadFamilies:
    return score_heads(str(model), FamilySettings(**{**FEW, **settings}), device="cpu")


@pytest.fixture(scope="module")
def families(planted: Path) -> HeadFamilies:
    return scored(planted)


def check_planted(families: HeadFamilies) -> None:
    """Each planted head is first in its family, far above its control and above the second head."""
    for name, place in PLANTED.items():
        first, second = families.families[name][:2]
        assert (first.layer, first.head) == place, name
        full = 0.5 if name == "duplicate-token" else 1.0  # it also looks at the token itself
        assert first.score == pytest.approx(full, abs=0.05) and first.control < 0.1
        assert second.above < 0.5 * first.above


def test_planted_heads_come_first(families: HeadFamilies) -> None:
    check_planted(families)
    assert families.bos == 0


def test_a_model_without_bos_begins_with_a_random_token(tmp_path: Path) -> None:
    families = scored(planted_model(tmp_path / "model", bos=False))
    check_planted(families)
    assert families.bos is None


def test_every_head_is_in_every_family(families: HeadFamilies) -> None:
    heads = {(layer, head) for layer in range(2) for head in range(NUM_HEADS)}
    for scores in families.families.values():
        assert {(one.layer, one.head) for one in scores} == heads and len(scores) == len(heads)
        assert [one.above for one in scores] == sorted((one.above for one in scores), reverse=True)


def test_batches_change_nothing(planted: Path, families: HeadFamilies) -> None:
    other = scored(planted, batch_size=3)
    for name, scores in families.families.items():
        ours = {(one.layer, one.head): one for one in other.families[name]}
        for one in scores:
            same = ours[one.layer, one.head]
            assert (same.score, same.control) == pytest.approx((one.score, one.control), abs=1e-6)


def test_another_seed_draws_other_tokens(planted: Path, families: HeadFamilies) -> None:
    other = scored(planted, seed=1)
    assert other.families["induction"] != families.families["induction"]


def test_too_long_a_stretch_is_refused(planted: Path) -> None:
    with pytest.raises(RequestError, match=r"length is 20: .* sees 40 tokens and has 62 .* give 19 at most"):
        scored(planted, length=20)


@pytest.mark.parametrize("given", [{"length": 2}, {"sequences": 0}, {"batch_size": 0}, {"seed": -1}])
def test_settings_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(given))):
        FamilySettings(**given)
