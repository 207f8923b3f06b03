"""Rates of the demo model: pieces that grow, and blocks that stand for a model which is too large."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from alens.model.models import LoadedModel
from alens.planning import model_rates
from alens.planning.budget import Budget, Took
from alens.planning.fit_rates import fit_rates
from alens.planning.stand_ins import stand_ins
from alens.store.arrays import shard_arrays
from alens.store.cache_reader import open_cache
from alens.store.schema import Plan


@pytest.fixture(scope="module")
def plan(half_written: Any) -> Plan:
    """Sequences of 64 tokens, 512 rows a shard, batches of 8 sequences, layers 0 and 2."""
    return open_cache(half_written).plan


@pytest.fixture(scope="module")
def tokens(half_written: Any) -> Any:
    return open_cache(half_written).tokens


def took(seconds: float) -> Took:
    return Took(wall_s=seconds, cpu_s=seconds, own_s=seconds, threads=1)


def test_pieces_grow_to_a_batch(model: LoadedModel, plan: Plan, tokens: Any) -> None:
    rates = model_rates.model_rates(model, plan, tokens[:8], Budget(20.0))
    assert (rates.plan.rows, rates.batch_rows, rates.blocks, rates.scaled_from) == (512, 512, None, None)
    assert rates.forward_s > 0
    assert rates.compute_s > 0
    assert rates.arrays["targets/ids"].shape == (512, 8)


def test_without_a_budget_one_short_sequence_is_run(model: LoadedModel, plan: Plan, tokens: Any) -> None:
    long = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, seq_len=256))
    rates = model_rates.model_rates(model, long, np.resize(tokens, (2, 256)), Budget(0.0))
    assert (rates.plan.rows, rates.plan.settings.seq_len) == (64, 64)
    assert (rates.blocks, rates.scaled_from) == (None, "64 of the 512 rows of a batch")


def test_a_model_that_is_too_large_is_scaled_by_its_blocks(
    model: LoadedModel, plan: Plan, tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model_rates.model_rates(model, plan, tokens[:1], Budget(0.0))
    monkeypatch.setattr(model_rates, "LEAST_S", 0.0)
    rates = model_rates.model_rates(model, plan, tokens[:1], Budget(0.0))
    assert (rates.blocks, rates.scaled_from) == ((1, 4), "1 of its 4 blocks, run on 64 rows")
    assert whole.compute_s / 10 < rates.compute_s < 10 * whole.compute_s
    assert rates.forward_s < 10 * whole.forward_s
    fit = fit_rates(model, rates, Budget(0.0))
    assert 0 < fit.step_s(6, 1024) < 60


@pytest.mark.parametrize("settings", [{}, {"z_dtype": "int8"}, {"exact_teacher": True, "top_k": 4}], ids=str)
def test_stand_ins_are_arrays_of_the_plan(plan: Plan, settings: dict[str, Any]) -> None:
    plan = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, **settings))
    arrays, specs = stand_ins(plan), shard_arrays(plan)
    assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
        name: (spec.shard_shape(), np.dtype(spec.dtype)) for name, spec in specs.items()
    }
    assert all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
    ids_NK = np.sort(arrays["targets/ids"], axis=1)
    assert (np.diff(ids_NK.astype(int), axis=1) > 0).all()
    assert arrays["targets/ids"].max() < plan.model.d_vocab


@pytest.mark.parametrize(
    ("rows", "seconds", "a_row"),
    [
        ([512], [1.0], 1 / 512),
        ([64, 512], [0.3, 1.0], 1 / 512),  # a whole batch needs no line
        ([64, 128], [0.3, 0.4], (0.2 + 512 * 0.1 / 64) / 512),  # 0.2 s a piece, and 0.1 s for 64 rows
        ([64, 128], [0.4, 0.4], 0.4 / 128 / 2 * (1 + 128 / 512)),  # rows that cost nothing are not believed
        ([64, 128], [0.1, 0.4], 0.4 / 128),
    ],
)
def test_smaller_pieces_foretell_a_batch(rows: list[int], seconds: list[float], a_row: float) -> None:
    times = [took(one) for one in seconds]
    assert model_rates._a_row(rows, times, 512) == pytest.approx(a_row)


def test_what_a_cache_refuses_is_refused(
    model: LoadedModel, plan: Plan, tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model_rates, "_forward", refuse)
    with pytest.raises(Exception, match="the logits of one sequence do not fit the memory of cpu"):
        model_rates.model_rates(model, plan, tokens[:1], Budget(0.0))
