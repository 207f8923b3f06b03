"""How long the fits of a probe take, said before they begin."""

import pytest
import torch

from alens.fidelity.forms import TargetForm
from alens.fidelity.probe_fits import Rows
from alens.fidelity.probe_time import ProbeRates, measured_rates, probe_seconds, usable_rows
from alens.heads import Heads
from alens.store.cache_reader import Cache

CPU = torch.device("cpu")


def test_usable_rows_leave_out_position_0(demo: Cache) -> None:
    assert usable_rows(demo, (0, 3)) == 2 * 16 * 63


def test_a_loss_without_gradient_takes_less_and_the_exact_teacher_takes_some(
    demo: Cache, without_teacher: Cache
) -> None:
    rates = measured_rates(demo, 2, CPU)
    assert 0 < rates.loss < rates.step and rates.exact > 0
    assert measured_rates(without_teacher, 1, CPU).exact == 0


def test_the_seconds_of_fits_by_hand(demo: Cache) -> None:
    """5,040 rows twice are 9 steps of 1,024, which the fit evaluates after the last; 1,008 rows are judged."""
    heads, rows = Heads.grid((0, 3), (1, 4)), Rows(train=(0, 1, 2, 3, 4), held_out=(5,))
    rates = ProbeRates(step=1.0, loss=100.0, exact=10_000.0)
    exact_fit = 2 * 5040 * (2 * 1.0 + 10_000.0) + 3 * 1008 * (2 * 100.0 + 10_000.0)
    other_fit = 2 * 5040 * 2 * 1.0 + 1008 * (3 * 2 * 100.0 + 2 * 10_000.0)
    variants = [("reference", None, None), ("other targets", None, TargetForm(4, 4))]
    assert probe_seconds(demo, heads, rows, variants[:1], rates) == pytest.approx(exact_fit)
    assert probe_seconds(demo, heads, rows, variants, rates) == pytest.approx(exact_fit + other_fit)
