"""When a head has converged: judged by what its held-out KL gained while the steps doubled, and doubled again.

In: the held-out KL of one head after some steps, always over the same held-out rows, of averaged weights.
Out: an estimate of what is left to gain, and whether that is little enough to stop. Averaged weights come
to the optimum as 1/step: each doubling gains half of what the one before it did, so what is left is what
the last one gained. Where gains shrink more slowly than that, more is left, and the estimate says so.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 0.005
"""Share of its KL that a head may have left to gain when it stops (docs/decisions/0017)."""

SMALLEST_NATS = 1e-3
"""Less than this is nothing, however small the KL is: a nearly perfect lens would never stop."""

FIRST_EVALUATION = 32
"""Step of the first: twice before it the steps doubled from one that says something."""

RATIOS = (0.5, 0.9)
"""Bounds of what a doubling gains, as a share of what the one before it did: 1/step, and very slow."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The held-out KL of one head after `step` steps, in nats."""

    step: int
    kl: float


def evaluation_steps(last: int) -> list[int]:
    """When to evaluate: from FIRST_EVALUATION on at every half doubling, and after the last step."""
    steps = (round(FIRST_EVALUATION * 2 ** (half / 2)) for half in itertools.count())
    return [*itertools.takewhile(lambda step: step < last, steps), last]


def left_to_gain(history: Sequence[Evaluation]) -> float | None:
    """Nats that more steps on such rows would still gain, or None before the steps have doubled twice.

    `history` is in order of steps. Below 0 where the KL rises: the fit has begun to learn its rows by heart.
    """
    if not history:
        return None
    quarter, half = (_at(history, history[-1].step / part) for part in (4, 2))
    if quarter is None or half is None or not math.isfinite(quarter - half - history[-1].kl):
        return None
    before, gain = quarter - half, half - history[-1].kl
    slowest = 1.0 if before <= 0 else gain / before
    ratio = min(max(slowest, RATIOS[0]), RATIOS[1])
    # The second is the same figure under the law of 1/step, from two doublings: a chance dip of the last
    # evaluation does not stop a head.
    return max(gain * ratio / (1.0 - ratio), (before + gain) / 3.0)


def converged(history: Sequence[Evaluation], tolerance: float = TOLERANCE) -> bool:
    """Whether what is left to gain is at most `tolerance` of the KL as it is."""
    left = left_to_gain(history)
    return left is not None and left <= max(tolerance * history[-1].kl, SMALLEST_NATS)


def _at(history: Sequence[Evaluation], step: float) -> float | None:
    """The KL after `step` steps, between evaluations on a line over the logarithm of steps."""
    for earlier, later in itertools.pairwise(history):
        if earlier.step <= step <= later.step:
            part = math.log(step / earlier.step) / math.log(later.step / earlier.step)
            return earlier.kl + part * (later.kl - earlier.kl)
    return None
