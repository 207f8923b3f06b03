"""Planted heads come first in their families, with and without BOS; scores depend on the settings alone."""

from pathlib import Path
from typing import Any

import pytest

from alens import FamilySettings, score_heads
from alens.errors import RequestError
from alens.studies.families.attention_scores import FAMILIES
from alens.studies.families.relations import Relation
from alens.studies.families.result import HeadFamilies
from alens.studies.families.score_heads import families_of

from ...model.families import GATED, save
from .planted_heads import (
    DUPLICATE,
    FIRST,
    INDUCTION,
    LENGTH,
    NEXT,
    NUM_HEADS,
    PREVIOUS,
    planted_model,
)

FEW = {"sequences": 4, "length": LENGTH, "tokens": 20, "top_k": 1}
WORDS = Relation(name="next", pairs=tuple((f"w{n}", f"w{n + 1}") for n in range(5, 25)), source="words")
PLANTED = {
    "previous-token": PREVIOUS,
    "duplicate-token": DUPLICATE,
    "induction": INDUCTION,
    "first-token": FIRST,
}


def scored(model: Path, **settings: Any) -> HeadFamilies:
    return score_heads(str(model), FamilySettings(**{**FEW, **settings}), relations=[WORDS], device="cpu")


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


@pytest.mark.parametrize(
    ("name", "place"), [("copying", INDUCTION), ("suppression", DUPLICATE), ("next", NEXT)]
)
def test_parameters_say_what_planted_heads_write(
    families: HeadFamilies, name: str, place: tuple[int, int]
) -> None:
    first, second = families.families[name][:2]
    assert (first.layer, first.head) == place
    assert (first.score, first.control) == (1.0, 0.0 if name != "next" else pytest.approx(0.0))
    assert second.score < 0.3


def test_relations_of_other_words_are_left_out(families: HeadFamilies) -> None:
    assert "capitals" not in families.families
    assert (families.relations["capitals"].pairs, families.relations["capitals"].left_out) == (0, 48)
    assert (families.relations["next"].pairs, families.relations["next"].left_out) == (20, 0)


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


def test_a_relation_of_other_words_that_was_asked_for_is_refused(planted: Path) -> None:
    other = Relation(name="colours", pairs=(("red", "green"), *WORDS.pairs[:4]), source="colours.tsv")
    with pytest.raises(RequestError, match=r"colours.tsv: 4 of 5 pairs of 'colours' .* and 5 are needed"):
        score_heads(str(planted), FamilySettings(**FEW), relations=[other], device="cpu")


@pytest.mark.parametrize("name", ["induction", "copying", "next"])
def test_two_families_of_one_name_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"two families are called '{name}'"):
        families_of([WORDS, Relation(name=name, pairs=WORDS.pairs, source="words")])


def test_a_relation_takes_the_place_of_a_shipped_one() -> None:
    other = Relation(name="capitals", pairs=WORDS.pairs, source="words")
    assert families_of([other]).count("capitals") == 1


def test_gain_and_factor_behind_attention_are_part_of_what_heads_write(tmp_path: Path) -> None:
    """Gemma 2 norms what its attention adds, behind a norm that makes the values."""
    folder = save(tmp_path / "model", "Gemma2Config", {**GATED, "head_dim": 16})
    families = score_heads(str(folder), FamilySettings(sequences=1, length=4), device="cpu")
    assert families.left_out is None
    assert {"copying", "suppression"} < families.families.keys()


def test_what_heads_write_is_left_out_where_no_norm_makes_the_values(tmp_path: Path) -> None:
    """OLMo 2 has norms behind its attention alone."""
    folder = save(tmp_path / "model", "Olmo2Config", GATED)
    families = score_heads(str(folder), FamilySettings(sequences=1, length=4), device="cpu")
    assert list(families.families) == list(FAMILIES)
    assert families.left_out is not None and "norm" in families.left_out


def test_more_top_tokens_than_there_are_is_refused(planted: Path) -> None:
    with pytest.raises(RequestError, match=r"top_k is 65: .* has 64 tokens"):
        scored(planted, top_k=65)


@pytest.mark.parametrize(
    "given", [{"tokens": 1}, {"top_k": 0}, {"length": 2}, {"sequences": 0}, {"batch_size": 0}, {"seed": -1}]
)
def test_settings_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(given))):
        FamilySettings(**given)
