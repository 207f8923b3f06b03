"""When a lens is trained no further: it has nothing left to gain, or its held-out loss has risen since its best.

In: the held-out losses of one lens, with averaged weights, after some steps, always on the same rows; and the loss of the
mean output on these rows. Out: an estimate of what is left to gain, and how the lens has ended, if it has.
Averaged weights approach the optimum as 1/step: each doubling of the steps gains half of what the one before it gained, so
as much is left as the last doubling gained. Where gains shrink more slowly than that, the estimate is larger.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 0.02
"""A lens may stop when it has this share of its gain over the mean output left to gain (docs/decisions/0032)."""

SMALLEST_NATS = 2e-4
"""A smaller gain counts as none: two evaluations of equally good lenses differ by more."""

ENDINGS = CONVERGED, ROSE, DIVERGED = "converged", "rose", "diverged"
"""How the training of a lens ends before the last step."""

FIRST_EVALUATION = 32
"""The step of the first evaluation: before it, the steps have doubled twice since a loss was worth looking at."""

RATIOS = (0.5, 0.9)
"""Bounds of what a doubling gains, as a share of what the doubling before it gained: 1/step, and very slow."""


MOST_DOUBLINGS = 10
"""A thousand times the rows: a curve of two doublings says nothing about more."""


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """The held-out loss of one lens after `step` steps, in nats."""

    step: int
    loss: float


def evaluation_steps(last: int) -> list[int]:
    """The steps to evaluate at: from FIRST_EVALUATION on every half doubling, and the last step."""
    steps = (round(FIRST_EVALUATION * 2 ** (half / 2)) for half in itertools.count())
    return [*itertools.takewhile(lambda step: step < last, steps), last]


def left_to_gain(history: Sequence[HeldOutLoss]) -> float | None:
    """Nats that more steps on such rows would still gain, or None before the steps have doubled twice.

    `history` is in order of steps. The result is below 0 where the loss rises: the fit has begun to overfit.
    """
    doublings = _doublings(history)
    if doublings is None:
        return None
    before, gain = doublings
    ratio = _ratio(before, gain)
    # The second is the same figure from two doublings, under the law of 1/step: so a chance dip at the last evaluation
    # does not stop a lens.
    return max(gain * ratio / (1.0 - ratio), (before + gain) / 3.0)


def doublings_left(
    history: Sequence[HeldOutLoss], mean_output: float, tolerance: float = TOLERANCE
) -> int | None:
    """How often the rows must double until a lens has at most `tolerance` of its gain over the mean output left to gain.

    0 where it has no more than that now, one at least where it has overfitted its rows; at most MOST_DOUBLINGS. A curve of
    one doubling is taken to go on as 1/step. None for a shorter one, and for a lens that does no better than the mean output.
    """
    lowest = best(history)
    half = _at(history, history[-1].step / 2) if history else None
    if half is None or lowest is None or not lowest.loss < mean_output:
        return None
    band, last = max(tolerance * (mean_output - lowest.loss), SMALLEST_NATS), history[-1].loss
    if not math.isfinite(half - last):
        return None
    if last - lowest.loss > band:  # more rows would help, and nobody can say how much
        return 1
    doublings, left = _doublings(history), left_to_gain(history)
    ratio = RATIOS[0] if doublings is None else _ratio(*doublings)
    left = half - last if left is None else left
    return 0 if left <= band else min(MOST_DOUBLINGS, math.ceil(math.log(band / left) / math.log(ratio)))


def _doublings(history: Sequence[HeldOutLoss]) -> tuple[float, float] | None:
    """Nats gained by the last doubling of the steps but one, and by the last."""
    if not history:
        return None
    quarter, half = (_at(history, history[-1].step / part) for part in (4, 2))
    if quarter is None or half is None or not math.isfinite(quarter - half - history[-1].loss):
        return None
    return quarter - half, half - history[-1].loss


def _ratio(before: float, gain: float) -> float:
    """What a doubling gains, as a share of what the doubling before it gained, within RATIOS."""
    slowest = 1.0 if before <= 0 else gain / before
    return min(max(slowest, RATIOS[0]), RATIOS[1])


def best(history: Sequence[HeldOutLoss]) -> HeldOutLoss | None:
    """The evaluation with the lowest loss, the first of equals; None where no loss is a finite number."""
    finite = [evaluation for evaluation in history if math.isfinite(evaluation.loss)]
    return min(finite, key=lambda evaluation: evaluation.loss, default=None)


def ending(history: Sequence[HeldOutLoss], mean_output: float, tolerance: float = TOLERANCE) -> str | None:
    """How this lens has ended, or None while it is to be trained on.

    `CONVERGED`: its loss is below that of the mean output, has no more than `tolerance` of that gain left to fall, and has
    not risen by more. `ROSE`: its best evaluation is a doubling of steps ago, and the loss rose over the last doubling.
    `DIVERGED`: the loss is not finite.
    """
    if not history:
        return None
    last, lowest = history[-1], best(history)
    if not math.isfinite(last.loss) or lowest is None:
        return DIVERGED
    band = max(tolerance * (mean_output - lowest.loss), SMALLEST_NATS)
    half = _at(history, last.step / 2)
    if (
        half is not None
        and lowest.step <= last.step / 2
        and min(last.loss - half, last.loss - lowest.loss) > band
    ):
        return ROSE
    left = left_to_gain(history)
    flat = left is not None and left <= band and last.loss - lowest.loss <= band
    return CONVERGED if flat and lowest.loss < mean_output else None


def _at(history: Sequence[HeldOutLoss], step: float) -> float | None:
    """The loss after `step` steps, interpolated between evaluations on a line over the logarithm of steps.

    A start is not on the curve of steps.
    """
    for earlier, later in itertools.pairwise(evaluation for evaluation in history if evaluation.step > 0):
        if earlier.step <= step <= later.step:
            part = math.log(step / earlier.step) / math.log(later.step / earlier.step)
            return earlier.loss + part * (later.loss - earlier.loss)
    return None
