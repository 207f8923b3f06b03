"""Rates of a fit: a line through one head and several."""

from typing import Any

import pytest

from alens.fit.settings import FitSettings
from alens.model.models import LoadedModel
from alens.planning import fit_rates
from alens.planning.budget import Budget, Took
from alens.planning.fit_rates import FitRates, _Step
from alens.planning.judging_rates import JudgingRates
from alens.planning.model_rates import ModelRates, model_rates
from alens.store.cache_reader import open_cache


@pytest.fixture(scope="module")
def rates(half_written: Any, model: LoadedModel) -> ModelRates:
    cache = open_cache(half_written)
    return model_rates(model, cache.plan, cache.tokens[:8], Budget(0.0))


def took(seconds: float, threads: int = 2) -> Took:
    return Took(wall_s=2 * seconds, cpu_s=seconds, own_s=seconds, threads=threads)


def step(heads: int, seconds: float, rows: int = 100) -> _Step:
    return _Step(heads=heads, rows=rows, loss=took(seconds), optimiser=took(0.0), weights=heads * 1000)


def fitted(**changes: Any) -> FitRates:
    given = {"layer_s": 1.0, "head_s": 2.0, "head_step_s": 10.0, "threads": 1, "heads": 3, "rows": 100}
    judging = JudgingRates(teacher_s=1.0, loss_s=1.0, figures_s=1.0, threads=1)
    sizes = {"weights": 5, "map_bytes": 20, "shared_bytes": 0, "at_closed_form": True}
    return FitRates(settings=FitSettings(), judging=judging, took=took(1.0), **{**sizes, **given, **changes})


def test_a_step_is_linear_in_rows_and_heads() -> None:
    assert fitted().step_s(4, 100) == 100 * (1.0 + 4 * 2.0) + 4 * 10.0


def test_heads_are_given_to_threads() -> None:
    assert fitted(threads=2).step_s(5, 100) == pytest.approx(100 * (1.0 + 5 * 2.0) * 3 / 5 + 5 * 10.0)
    assert fitted(threads=2).step_s(1, 100) == fitted().step_s(1, 100)


@pytest.mark.parametrize(
    ("one", "several", "line"),
    [
        (step(1, 3.0), step(3, 7.0), (1.0, 2.0)),  # a third of the work of one head is shared
        (step(1, 3.0), step(1, 3.0), (0.0, 3.0)),  # one head alone
        (step(1, 3.0), step(3, 2.0), (2.0, 0.0)),  # more heads are free
        (step(1, 1.0), step(3, 6.0), (0.0, 2.0)),  # heads share nothing
    ],
)
def test_a_line_through_one_head_and_several(one: _Step, several: _Step, line: tuple[float, float]) -> None:
    assert fit_rates._line(one, several) == line


def test_a_budget_reaches_for_a_layer(model: LoadedModel, rates: ModelRates) -> None:
    fit = fit_rates.fit_rates(model, rates, Budget(60.0))
    assert (fit.heads, fit.rows) == (6, FitSettings().batch_rows)
    assert (fit.weights, fit.map_bytes, fit.shared_bytes) == ((32 + 1) * 4096, 4 * (32 + 1) * 4096, 0)
    judging = fit.judging
    assert min(judging.teacher_s, judging.loss_s, judging.figures_s) > 0
    assert min(fit.head_s + fit.layer_s, fit.head_step_s) > 0


def test_without_a_budget_few_rows_of_one_head_are_fitted(model: LoadedModel, rates: ModelRates) -> None:
    fit = fit_rates.fit_rates(model, rates, Budget(0.0))
    assert (fit.heads, fit.rows, fit.layer_s) == (1, fit_rates.FIRST_ROWS, 0.0)
    assert fit.head_s > 0


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({"heads": 4, "rows": 1024}, None),
        ({"heads": 3, "rows": 1024}, "3 of the 4 heads of a layer"),
        ({"heads": 4, "rows": 128}, "128 of the 1,024 rows of a step"),
        ({"heads": 1, "rows": 128}, "128 of the 1,024 rows of a step, 1 of the 4 heads of a layer"),
    ],
)
def test_it_says_what_it_was_scaled_from(changes: dict[str, int], source: str | None) -> None:
    assert fitted(**changes).scaled_from(4) == source


def test_memory_bounds_the_heads(
    model: LoadedModel, rates: ModelRates, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_head = 4 * fit_rates.COPIES * (32 + 1) * 4096
    monkeypatch.setattr(fit_rates, "free_bytes", lambda _: fit_rates.SHARE_OF_MEMORY * 4 * a_head)
    assert fit_rates.fit_rates(model, rates, Budget(60.0)).heads == 3
