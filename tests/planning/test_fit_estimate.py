"""What a fit would take: the arithmetic by hand, and the same numbers of a real fit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import CacheRequest, FitRequest, fit_lenses, open_cache
from alens.errors import RequestError
from alens.fit.convergence import evaluation_steps
from alens.fit.fit_plan import resolve
from alens.fit.settings import FitSettings
from alens.heads import Heads, requested
from alens.planning.fit_estimate import FitEstimate
from alens.planning.fit_heads import every_head, heads_to_fit
from alens.planning.result import Estimate

MakeRequest = Callable[..., CacheRequest]
MakeEstimate = Callable[..., Estimate]


@pytest.fixture(scope="module")
def estimate(request_for: MakeRequest, estimated: MakeEstimate, tmp_path_factory: Any) -> Estimate:
    return estimated(request_for(tmp_path_factory.mktemp("planned") / "store"))


def with_settings(fit: FitEstimate, **changes: Any) -> FitEstimate:
    """The same fit with other settings than the defaults."""
    settings = dataclasses.replace(fit.rates.settings, **changes)
    return dataclasses.replace(fit, rates=dataclasses.replace(fit.rates, settings=settings))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 3.5, "batch_rows": 96},
        {"eval_rows": 513},
        {"rows": 600},
        {"steps": 7},
        {"min_position": 9},
    ],
    ids=str,
)
def test_rows_and_steps_are_those_of_the_fit(
    demo_cache: Path, estimate: Estimate, changes: dict[str, Any]
) -> None:
    """On the demo's cache, of which the estimate of a cache with its plan must say the same as the fit."""
    cache, settings = open_cache(demo_cache), FitSettings(**{"eval_rows": 1024, "batch_rows": 128, **changes})
    real = resolve(FitRequest(store=demo_cache, lenses=demo_cache / "new", settings=settings), cache)
    fit = with_settings(
        estimate.fit_estimate(Heads.grid((0,), range(6))), **{"eval_rows": 1024, "batch_rows": 128, **changes}
    )
    fit = dataclasses.replace(fit, plan=cache.plan)
    assert fit.shards == (real.train_shards, real.held_out_shards)
    assert fit.steps == real.steps


def test_the_time_is_that_of_its_parts(estimate: Estimate) -> None:
    fit = with_settings(estimate.fit_estimate(Heads.grid((0, 2), range(6))), eval_rows=512, batch_rows=256)
    body, rates = fit.to_json(), fit.rates
    assert (body["heads"], body["layers"], body["refused"]) == (12, 2, None)
    assert (body["train_rows"], body["held_out_rows"]) == (3 * 8 * 63, 8 * 63)
    assert body["steps"] == 2 * 3 * 8 * 63 // 256
    assert body["evaluations"] == len(evaluation_steps(body["steps"])) + 1  # one before the first step
    assert body["step_hours"] == pytest.approx(body["steps"] * 2 * rates.step_s(6, 256) / 3600)
    assert body["evaluate_hours"] == pytest.approx(
        body["evaluations"] * rates.judging.losses_s(12, 504) / 3600
    )
    assert body["figures_hours"] == pytest.approx(rates.judging.all_figures_s(12, 504) / 3600)
    assert body["write_hours"] == pytest.approx(fit.disk.save_s(fit.lens_bytes) / 3600)
    parts = ("step_hours", "evaluate_hours", "figures_hours", "write_hours")
    assert body["fit_hours"] == pytest.approx(sum(body[part] for part in parts))
    assert min(body[part] for part in parts) > 0


def test_checkpoints_are_written_too(estimate: Estimate) -> None:
    few, many = (
        with_settings(estimate.fit_estimate(Heads.grid((0,), range(6))), eval_rows=512, steps=n)
        for n in (500, 1501)
    )
    assert (few.saves, many.saves) == (0, 3)
    assert many.write_s - few.write_s == pytest.approx(3 * many.save_s)


def test_memory_is_twenty_bytes_a_weight_and_what_is_beside(estimate: Estimate) -> None:
    fit = estimate.fit_estimate(Heads.grid((0, 2), range(6)))
    weights = 12 * (32 + 1) * 4096
    shard = 512 * (2 * 6 * 32 * 2 + 8 * 2 + 8 * 2 + 4 + 4 + 8 * 2 + 2)
    assert (fit.weights, fit.training_bytes) == (weights, 20 * weights)
    assert fit.memory_bytes == (20 + 4 + 4) * weights + 2 * shard
    assert fit.save_memory_bytes == (20 + 16 + 4) * weights + 2 * shard
    body = fit.to_json()
    body_of_gpu = dataclasses.replace(fit, on_cpu=False)
    assert body["refused"] is None
    assert with_settings(fit, eval_rows=512).to_json()["needed_bytes"] == fit.memory_bytes
    assert with_settings(body_of_gpu, eval_rows=512).to_json()["needed_bytes"] == fit.training_bytes


def test_the_lenses_have_the_size_that_was_estimated(
    tmp_path: Path, demo_cache: Path, estimate: Estimate
) -> None:
    settings = FitSettings(layers=(0, 3), batch_rows=128, eval_rows=512, steps=1)
    lenses = tmp_path / "lenses"
    fit_lenses(FitRequest(store=demo_cache, lenses=lenses, settings=settings, device="cpu"))
    files = sum(path.stat().st_size for path in lenses.glob("layer-*.safetensors"))
    assert estimate.fit_estimate(Heads.grid((0, 2), range(6))).lens_bytes == pytest.approx(files, rel=0.01)


def test_rows_that_leave_nothing_to_train_on_are_refused(estimate: Estimate) -> None:
    asked = with_settings(estimate.fit_estimate(estimate.heads), eval_rows=16_384)
    refused = asked.to_json()["refused"]
    assert refused.startswith("the cache has 4 committed shards, and ")
    assert "nothing is left to train on" in refused


def test_named_heads_take_what_they_are(estimate: Estimate) -> None:
    """The heads of each layer count, not the rectangle around them."""
    named, every_one = requested(None, "0.1,2.0-1", every_head(estimate.plan)), Heads.grid((0, 2), range(6))
    few, every = (with_settings(estimate.fit_estimate(heads), eval_rows=512) for heads in (named, every_one))
    assert (few.num_heads, every.num_heads) == (3, 12)
    assert few.training_bytes * 4 == every.training_bytes and few.lens_bytes < every.lens_bytes / 2
    assert few.step_s < every.step_s


def test_heads_that_the_cache_would_not_hold_are_refused(estimate: Estimate) -> None:
    assert heads_to_fit(estimate.plan, None) == estimate.heads == every_head(estimate.plan)
    for name in ("9.0", "0.6"):
        with pytest.raises(
            RequestError, match=rf"head {name} would not be in the cache, which has heads 0 to 5 of"
        ):
            heads_to_fit(estimate.plan, name)
