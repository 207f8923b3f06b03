"""When a lens is trained no further: on curves whose end is known, with and without noise."""

import itertools
import math

import numpy as np
import pytest

from alens.fit.convergence import (
    CONVERGED,
    DIVERGED,
    FIRST_EVALUATION,
    ROSE,
    SMALLEST_NATS,
    TOLERANCE,
    HeldOutLoss,
    best,
    doublings_left,
    ending,
    evaluation_steps,
    left_to_gain,
)

MEAN_OUTPUT = 2.5
"""The mean output of the curves that end at 2: they have half a nat to gain."""


def converged(
    history: list[HeldOutLoss], tolerance: float = TOLERANCE, mean_output: float = MEAN_OUTPUT
) -> bool:
    return ending(history, mean_output, tolerance) == CONVERGED


def curve(end: float, scale: float, power: float, noise: float = 0.0, seed: int = 0) -> list[HeldOutLoss]:
    """`end + scale / step^power`, at the steps that a fit evaluates at."""
    random = np.random.default_rng(seed)
    return [
        HeldOutLoss(step=step, loss=end + scale / step**power + noise * random.normal())
        for step in evaluation_steps(100_000)
    ]


def kl_at_the_stop(history: list[HeldOutLoss]) -> float:
    for count in range(1, len(history) + 1):
        if converged(history[:count]):
            return history[count - 1].loss
    raise AssertionError("it did not stop")


@pytest.mark.parametrize("power", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("scale", [0.5, 5.0, 20.0])
def test_it_stops_within_its_tolerance_of_the_end(power: float, scale: float) -> None:
    """At most twice the tolerance of its gain is left: these curves do not quite follow the law of 1/step."""
    assert 2.0 <= kl_at_the_stop(curve(2.0, scale, power)) <= 2.0 + 2 * TOLERANCE * (MEAN_OUTPUT - 2.0)


@pytest.mark.parametrize("gain", [0.067, 0.5, 2.0])
def test_how_near_its_end_a_lens_comes_is_a_share_of_its_gain(gain: float) -> None:
    """A lens that gains little over the mean output may be off by little, whatever its KL is."""
    history = curve(3.0, gain, 1.0)
    stopped = next(
        history[count - 1] for count in range(1, 40) if converged(history[:count], mean_output=3.0 + gain)
    )
    assert 3.0 <= stopped.loss <= 3.0 + 2 * TOLERANCE * gain


def test_what_is_left_is_exact_where_gains_halve() -> None:
    history = curve(2.0, 10.0, 1.0)[:9]
    assert left_to_gain(history) == pytest.approx(10.0 / history[-1].step, rel=0.05)


def test_it_goes_on_while_gains_shrink_slowly() -> None:
    """A curve that gains 0.4 % in each doubling of steps is not at its end."""
    history = [HeldOutLoss(step=step, loss=2.0 * 0.996 ** math.log2(step)) for step in evaluation_steps(1000)]
    assert not converged(history)


def test_chance_does_not_stop_a_lens_far_from_its_end() -> None:
    """Noise of a tenth of a percent between evaluations: more than 4,096 paired rows have."""
    for seed in range(50):
        noisy = curve(2.0, 10.0, 1.0, noise=0.002, seed=seed)
        assert kl_at_the_stop(noisy) <= 2.0 * 1.015


def test_one_gain_that_came_out_small_does_not_stop_a_head() -> None:
    """The last loss is too high by chance: the doubling before it shows that more is left to gain."""
    history = [HeldOutLoss(step=step, loss=kl) for step, kl in ((32, 2.08), (64, 2.04), (128, 2.035))]
    assert left_to_gain(history) == pytest.approx(0.015)
    assert not converged(history)


def test_it_does_stop_in_noise() -> None:
    for seed in range(50):
        flat = curve(2.0, 0.0, 1.0, noise=0.002, seed=seed)[:12]
        assert any(converged(flat[:count]) for count in range(1, 13))


def test_a_rising_curve_has_not_converged_but_was_best_before() -> None:
    """Heads 18.6 and 18.7 of SmolLM2 at the rate 0.03, once taken for converged; the mean output's loss is 3.457."""
    steps = evaluation_steps(128)
    for kls, lowest in (
        ((3.4235, 3.4323, 3.4379, 3.4723, 3.5158), 32),
        ((3.6037, 3.5851, 3.5704, 3.5767, 3.6166), 64),
    ):
        history = [HeldOutLoss(step=step, loss=kl) for step, kl in zip(steps, kls, strict=True)]
        endings = [ending(history[:count], 3.457) for count in range(1, 6)]
        assert CONVERGED not in endings and endings[-1] == ROSE
        assert best(history) == HeldOutLoss(step=lowest, loss=min(kls))


def test_a_flat_curve_above_the_mean_output_has_not_converged() -> None:
    history = [HeldOutLoss(step=step, loss=2.6) for step in evaluation_steps(1000)]
    assert ending(history, 2.5) is None and ending(history, 2.7) == CONVERGED


def test_a_rise_that_turns_is_waited_for() -> None:
    """A lens that starts at the mean output overshoots, and then falls: it is not at its end."""
    kls = (3.0, 3.1, 3.15, 3.05, 2.9, 2.8)
    history = [HeldOutLoss(step=step, loss=kl) for step, kl in zip(evaluation_steps(181), kls, strict=True)]
    assert [ending(history[:count], 3.2) for count in (4, 5, 6)] == [None, None, None]


def test_a_chance_rise_after_the_best_is_no_end() -> None:
    history = [HeldOutLoss(step=step, loss=kl) for step, kl in ((32, 2.0), (45, 2.0001), (64, 2.0001))]
    assert ending(history, 2.5) is None


def test_the_best_is_the_first_of_equals_and_finite() -> None:
    history = [HeldOutLoss(step=s, loss=kl) for s, kl in ((1, math.nan), (2, 2.0), (3, 2.0), (4, 3.0))]
    assert best(history) == history[1]
    assert best(history[:1]) is None


def test_nothing_is_said_before_the_steps_have_doubled_twice() -> None:
    history = [HeldOutLoss(step=step, loss=2.0) for step in evaluation_steps(1000)]
    for count in range(5):
        assert left_to_gain(history[:count]) is None
        assert not converged(history[:count])
    assert converged(history[:5])


def test_evaluations_at_other_steps_do_as_well() -> None:
    """Losses between evaluations are interpolated: a fit that evaluates every 100 steps stops about where it should."""
    history = [HeldOutLoss(step=step, loss=2.0 + 10.0 / step) for step in range(100, 10_000, 100)]
    assert 2.0 <= kl_at_the_stop(history) <= 2.0 + 2 * TOLERANCE * (MEAN_OUTPUT - 2.0)


def test_a_gain_of_almost_nothing_has_an_end_too() -> None:
    """A gain below SMALLEST_NATS cannot be told from noise."""
    history = curve(2.0, 0.001, 1.0)
    assert any(converged(history[:count], mean_output=2.001) for count in range(1, len(history)))
    assert SMALLEST_NATS < 0.067 * TOLERANCE


def test_a_wider_tolerance_stops_earlier() -> None:
    history = curve(2.0, 10.0, 1.0)
    steps = [
        next(history[count - 1].step for count in range(1, 40) if converged(history[:count], share))
        for share in (TOLERANCE, 4 * TOLERANCE)
    ]
    assert steps[1] < steps[0] / 2


def test_a_kl_that_is_not_a_number_has_diverged() -> None:
    history = [HeldOutLoss(step=step, loss=math.nan) for step in evaluation_steps(1000)]
    assert left_to_gain(history) is None
    assert ending(history, 2.5) == DIVERGED


def test_evaluations_are_half_a_doubling_apart_and_one_is_at_the_end() -> None:
    steps = evaluation_steps(1000)
    assert steps[:5] == [FIRST_EVALUATION, 45, 64, 91, 128]
    assert steps[-1] == 1000
    assert evaluation_steps(5) == [5]
    assert evaluation_steps(FIRST_EVALUATION) == [FIRST_EVALUATION]
    assert all(later > earlier for earlier, later in itertools.pairwise(steps))


def test_the_rows_that_a_lens_wants_bring_it_within_its_tolerance() -> None:
    """On curves of a known end: after so many doublings, and not after one fewer, what is left is in the band."""
    for power, scale in ((1.0, 4.0), (0.7, 2.0), (0.5, 1.0)):
        whole = curve(2.0, scale, power)
        seen = [evaluation for evaluation in whole if evaluation.step <= 128]
        doublings = doublings_left(seen, MEAN_OUTPUT)
        assert doublings is not None and doublings > 0
        band = TOLERANCE * (MEAN_OUTPUT - seen[-1].loss)
        after = [scale / (seen[-1].step * 2**times) ** power for times in (doublings - 1, doublings)]
        assert after[1] <= 1.2 * band and after[0] > 0.8 * band


def test_a_lens_at_its_end_wants_no_rows_and_one_that_overfits_wants_some() -> None:
    assert doublings_left(curve(2.0, 1.0, 1.0), MEAN_OUTPUT) == 0
    rising = [HeldOutLoss(step=step, loss=2.0 + 0.1 * math.log2(step / 32)) for step in (32, 64, 128, 256)]
    assert doublings_left(rising, MEAN_OUTPUT) == 1
    assert doublings_left(rising, 1.9) is None and doublings_left(rising[:1], MEAN_OUTPUT) is None
