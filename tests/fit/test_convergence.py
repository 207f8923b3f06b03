"""When a head has converged: on curves whose end is known, with and without noise."""

import itertools
import math

import numpy as np
import pytest

from alens.fit.convergence import (
    FIRST_EVALUATION,
    SMALLEST_NATS,
    TOLERANCE,
    Evaluation,
    converged,
    evaluation_steps,
    left_to_gain,
)


def curve(end: float, scale: float, power: float, noise: float = 0.0, seed: int = 0) -> list[Evaluation]:
    """`end + scale / step^power`, at the steps that a fit evaluates at."""
    random = np.random.default_rng(seed)
    return [
        Evaluation(step=step, kl=end + scale / step**power + noise * random.normal())
        for step in evaluation_steps(100_000)
    ]


def kl_at_the_stop(history: list[Evaluation]) -> float:
    for count in range(1, len(history) + 1):
        if converged(history[:count]):
            return history[count - 1].kl
    raise AssertionError("it did not stop")


@pytest.mark.parametrize("power", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("scale", [0.5, 5.0, 20.0])
def test_it_stops_within_one_percent_of_the_end(power: float, scale: float) -> None:
    assert 2.0 <= kl_at_the_stop(curve(2.0, scale, power)) <= 2.0 * 1.01


def test_what_is_left_is_exact_where_gains_halve() -> None:
    history = curve(2.0, 10.0, 1.0)[:9]
    assert left_to_gain(history) == pytest.approx(10.0 / history[-1].step, rel=0.05)


def test_it_goes_on_while_gains_shrink_slowly() -> None:
    """A curve that gains 0.4 % a doubling, and gained as much before, is not at its end."""
    history = [Evaluation(step=step, kl=2.0 * 0.996 ** math.log2(step)) for step in evaluation_steps(1000)]
    assert not converged(history)


def test_chance_does_not_stop_a_head_far_from_its_end() -> None:
    """Noise of a tenth of a percent between evaluations: more than 4,096 paired rows have."""
    for seed in range(50):
        noisy = curve(2.0, 10.0, 1.0, noise=0.002, seed=seed)
        assert kl_at_the_stop(noisy) <= 2.0 * 1.015


def test_one_gain_that_came_out_small_does_not_stop_a_head() -> None:
    """The last figure is too high by chance: the doubling before tells that more is left than it says."""
    history = [Evaluation(step=step, kl=kl) for step, kl in ((32, 2.08), (64, 2.04), (128, 2.035))]
    assert left_to_gain(history) == pytest.approx(0.015)
    assert not converged(history)


def test_it_does_stop_in_noise() -> None:
    for seed in range(50):
        flat = curve(2.0, 0.0, 1.0, noise=0.002, seed=seed)[:12]
        assert any(converged(flat[:count]) for count in range(1, 13))


def test_a_rising_curve_stops() -> None:
    history = [Evaluation(step=step, kl=2.0 + 0.01 * math.log2(step)) for step in evaluation_steps(1000)]
    left = left_to_gain(history)
    assert left is not None
    assert left < 0
    assert converged(history)


def test_nothing_is_said_before_the_steps_have_doubled_twice() -> None:
    history = [Evaluation(step=step, kl=2.0) for step in evaluation_steps(1000)]
    for count in range(5):
        assert left_to_gain(history[:count]) is None
        assert not converged(history[:count])
    assert converged(history[:5])


def test_evaluations_at_other_steps_do_as_well() -> None:
    """Between evaluations it goes on a line: a fit that evaluates every 100 steps stops about where it should."""
    history = [Evaluation(step=step, kl=2.0 + 10.0 / step) for step in range(100, 10_000, 100)]
    assert 2.0 <= kl_at_the_stop(history) <= 2.0 * 1.01


def test_a_nearly_perfect_lens_stops() -> None:
    history = curve(0.0, 0.1, 1.0)
    assert kl_at_the_stop(history) < 2 * SMALLEST_NATS


def test_a_wider_tolerance_stops_earlier() -> None:
    history = curve(2.0, 10.0, 1.0)
    steps = [
        next(history[count - 1].step for count in range(1, 40) if converged(history[:count], share))
        for share in (TOLERANCE, 4 * TOLERANCE)
    ]
    assert steps[1] < steps[0] / 2


def test_a_kl_that_is_not_a_number_is_not_an_end() -> None:
    history = [Evaluation(step=step, kl=math.nan) for step in evaluation_steps(1000)]
    assert left_to_gain(history) is None
    assert not converged(history)


def test_evaluations_are_half_a_doubling_apart_and_one_is_at_the_end() -> None:
    steps = evaluation_steps(1000)
    assert steps[:5] == [FIRST_EVALUATION, 45, 64, 91, 128]
    assert steps[-1] == 1000
    assert evaluation_steps(5) == [5]
    assert evaluation_steps(FIRST_EVALUATION) == [FIRST_EVALUATION]
    assert all(later > earlier for earlier, later in itertools.pairwise(steps))
