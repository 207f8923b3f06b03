"""Which forms are tried, and what a reader of each sees."""

import dataclasses

import numpy as np
import pytest

from alens.errors import RequestError, RunError
from alens.fidelity.forms import TargetForm, ZForm, coarser_z, other_targets
from alens.store.arrays import shard_arrays
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings


def names(forms: tuple[ZForm, ...]) -> list[str]:
    return [form.name for form in forms]


def test_a_float16_cache_is_compared_with_all_that_was_asked_for() -> None:
    assert names(coarser_z(CacheSettings(), (3, 7, 3))) == ["keep_bits 7", "keep_bits 3", "int8"]
    assert names(coarser_z(CacheSettings(), None))[:2] == ["keep_bits 9", "keep_bits 8"]


def test_of_a_rounded_cache_only_coarser_forms_are_tried() -> None:
    assert names(coarser_z(CacheSettings(keep_bits=4), None)) == ["keep_bits 3", "keep_bits 2"]
    assert names(coarser_z(CacheSettings(keep_bits=7), (7, 6))) == ["keep_bits 6", "int8"]
    forms = names(coarser_z(CacheSettings(z_dtype="int8"), None))
    assert forms == ["keep_bits 5", "keep_bits 4", "keep_bits 3", "keep_bits 2"]


def test_int8_lies_between_five_and_six_bits(demo: Cache) -> None:
    """`coarser_z` relies on this order."""
    z_NHE = demo.z(2, slice(0, 1024))
    error = {
        form: float(((form.decoded(z_NHE, 2).astype(float) - z_NHE) ** 2).sum())
        for form in (ZForm("float16", 6), ZForm("int8", None), ZForm("float16", 5))
    }
    assert list(error.values()) == sorted(error.values())


def test_every_k_is_tried_with_every_m_but_the_stored_pair(demo: Cache) -> None:
    settings, model = demo.plan.settings, demo.plan.model
    forms = other_targets(settings, model, (16, 4), (16, 2))
    assert forms == (TargetForm(4, 2), TargetForm(4, 16), TargetForm(16, 2))
    assert TargetForm(128, 64) in other_targets(settings, model, None, None)
    small = dataclasses.replace(model, d_vocab=100)
    assert max(form.top_k for form in other_targets(settings, small, None, None)) == 64


def test_without_the_exact_teacher_there_are_no_other_targets(without_teacher: Cache) -> None:
    assert other_targets(without_teacher.plan.settings, without_teacher.plan.model, (4,), (4,)) == ()


@pytest.mark.parametrize(
    ("top_k", "tail_samples", "message"),
    [((0,), None, "top_k is 0"), ((4097,), None, "give 1 to 4096"), (None, (0,), "tail_samples is 0")],
)
def test_targets_that_cannot_be_are_refused(
    demo: Cache, top_k: tuple[int, ...] | None, tail_samples: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        other_targets(demo.plan.settings, demo.plan.model, top_k, tail_samples)


def test_mantissa_bits_that_cannot_be_are_refused() -> None:
    with pytest.raises(RequestError, match="keep_bits is 10: give numbers in 0 to 9"):
        coarser_z(CacheSettings(), (10,))


def test_what_rounding_would_make_infinite_is_refused() -> None:
    z_NHE = np.full((1, 1, 1), 65504, np.float16)
    with pytest.raises(RunError, match=r"z of layer 3 reaches 65504\.0, which 2 mantissa bits cannot hold"):
        ZForm("float16", 2).decoded(z_NHE, 3)
    assert ZForm("int8", None).decoded(z_NHE, 3) == pytest.approx(65504, rel=1 / 254)


def test_bytes_of_targets_are_those_of_the_arrays(demo: Cache) -> None:
    specs = shard_arrays(demo.plan)
    names = ("ids", "log_probs", "logsumexp", "entropy", "tail_ids")
    expected = sum(specs[f"targets/{name}"].row_bytes for name in names)
    assert TargetForm(16, 16).bytes_per_row(demo.plan.model) == expected
    large = dataclasses.replace(demo.plan.model, d_vocab=70_000)
    specs = shard_arrays(dataclasses.replace(demo.plan, model=large))
    expected = sum(specs[f"targets/{name}"].row_bytes for name in names)
    assert TargetForm(16, 16).bytes_per_row(large) == expected
