"""The arithmetic of hours and passes, by hand."""

import math

import pytest

from alens.planning.costs import (
    Costs,
    FitCosts,
    break_even,
    passes_table,
    rows_of_slowest,
)

COSTS = Costs(forward_s=2.0, compute_s=3.0, write_s=1.0)
FIT = FitCosts(heads=12, read_s=0.5, fit_s=1.5)
SLOW_DISK = FitCosts(heads=12, read_s=2.5, fit_s=1.5)


def test_hours_of_a_cache() -> None:
    assert COSTS.cache_hours(900) == 1.0


def test_passes_either_way() -> None:
    one, two, ten = passes_table(COSTS, FIT, 3600, 3600)
    assert (one.passes, one.cached_hours, one.recomputed_hours) == (1, 5.5, 3.5)
    assert (two.passes, two.cached_hours, two.recomputed_hours, two.ratio) == (2, 7.0, 7.0, 1.0)
    assert (ten.passes, ten.cached_hours, ten.recomputed_hours) == (10, 19.0, 35.0)


def test_a_pass_takes_what_is_slower_reading_or_fitting() -> None:
    assert passes_table(COSTS, SLOW_DISK, 3600, 3600)[0].cached_hours == 3 + 1 + 2.5


def test_break_even_is_where_both_take_as_long() -> None:
    assert break_even(COSTS, FIT, 1.0) == 4.0 / 2.0
    assert break_even(COSTS, SLOW_DISK, 1.0) == 4.0 / 1.0


def test_what_is_committed_costs_nothing_more() -> None:
    assert passes_table(COSTS, FIT, 3600, 1800)[0].cached_hours == 2.0 + 1.5
    assert break_even(COSTS, FIT, 0.5) == 1.0


def test_a_cache_that_reads_slower_than_it_computes_never_pays() -> None:
    assert break_even(COSTS, FitCosts(heads=1, read_s=3.5, fit_s=1.5), 1.0) == math.inf
    assert break_even(COSTS, FitCosts(heads=1, read_s=9.0, fit_s=1.5), 1.0) == math.inf


@pytest.mark.parametrize(("workers", "rows"), [(1, 70), (2, 40), (3, 30), (7, 10), (100, 10)])
def test_the_slowest_worker(workers: int, rows: int) -> None:
    assert rows_of_slowest(7, workers, 10) == rows


def test_nothing_is_left_to_do() -> None:
    assert rows_of_slowest(0, 3, 10) == 0
