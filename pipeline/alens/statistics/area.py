"""The area under a ROC curve of detectors that were fitted several times, and its 95 % interval.

In: scores of prompts by fit, and which prompts each fit judged. Out: `Comparisons`.
The area is the share of (suspect, clean) comparisons in which the suspect prompt scores higher; a tie counts half
(Hanley and McNeil, 1982). Only prompts that the same fit judged are compared, and never the two prompts of a pair: they
differ in less than prompts that a detector meets. The interval leaves out one prompt, or pair, at a time:
- for fits as they are, it says what other judged prompts would have given;
- for fits on bootstrap draws, the fits that drew the prompt are left out with it, so that it is missing both among the
  judged prompts and among those that were fitted on: Efron and Tibshirani, "Improvements on Cross-Validation: The .632+
  Bootstrap Method" (1997). What too few draws add to the variance is taken off: Wager, Hastie and Efron, "Confidence
  Intervals for Random Forests" (2014).
Shapes: B fits, N prompts, S suspect, C clean, U units that are left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from alens.statistics.bootstrap import Array

Labels = npt.NDArray[np.bool_]

OUTSIDE = 0.05
"""The share of samples whose interval may miss the area."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """The comparisons that each prompt took part in, fit by fit."""

    won_BN: Array
    """How many comparisons the suspect prompt won, counted for both prompts; a tie counts half."""
    made_BN: Array
    """How many comparisons the prompt took part in."""
    suspect_N: Labels
    paired: bool

    @property
    def area(self) -> float:
        """The area; 0.5 is chance. Raises `ValueError` unless some fit judged both kinds of prompts."""
        made = self.made_BN[:, self.suspect_N].sum()
        if not made:
            raise ValueError("no fit judged both clean and suspect prompts")
        return float(self.won_BN[:, self.suspect_N].sum() / made)

    def interval(self, undrawn_BN: Labels | None = None, around: float | None = None) -> tuple[float, float]:
        """The 95 % interval of the area, over judged prompts; with `undrawn_BN`, over refits too.

        `undrawn_BN` says which fits did not draw which prompts. `around` is a better estimate of the area, if there is
        one. The interval is 0 to 1 where one kind has a single prompt: nothing is known of how such prompts vary.
        """
        variance = self._variance(np.ones(self.won_BN.shape, bool))
        if undrawn_BN is not None:
            variance = max(variance, self._variance(undrawn_BN) - self._noise())
        num_suspect = int(self.suspect_N.sum())
        area = self.area if around is None else around
        return _interval(area, variance, min(num_suspect, len(self.suspect_N) - num_suspect))

    def _units(self, what_BN: Array) -> list[Array]:
        """(B, U) for clean prompts and for suspect ones; where there are pairs, for pairs alone."""
        both = [what_BN[:, ~self.suspect_N], what_BN[:, self.suspect_N]]
        return [both[0] + both[1]] if self.paired else both

    def _variance(self, kept_BN: Labels) -> float:
        won_B1, made_B1 = (
            what[:, self.suspect_N].sum(axis=1, keepdims=True) for what in (self.won_BN, self.made_BN)
        )
        variance = 0.0
        for won_BU, made_BU, kept_BU in zip(
            *map(self._units, (self.won_BN, self.made_BN, kept_BN.astype(np.float64))), strict=True
        ):
            kept_BU = kept_BU > 0
            with np.errstate(invalid="ignore"):  # a kind that has one prompt has nothing left
                left_U = ((won_B1 - won_BU) * kept_BU).sum(0) / ((made_B1 - made_BU) * kept_BU).sum(0)
            variance += (len(left_U) - 1) * float(left_U.var())
        return variance

    def _noise(self) -> float:
        """What a finite number of draws adds to the variance."""
        won_B, made_B = (what[:, self.suspect_N].sum(axis=1) for what in (self.won_BN, self.made_BN))
        apart_B = (won_B - self.area * made_B) / made_B.mean()
        units = sum(one.shape[1] for one in self._units(self.won_BN))
        return float((math.e - 1) * units / len(apart_B) * np.square(apart_B).mean())


def comparisons(scores_BN: Array, judged_BN: Labels, suspect_N: Labels, *, paired: bool) -> Comparisons:
    """All comparisons. With `paired` there are as many clean as suspect prompts, in the same order."""
    won_BN, made_BN = np.zeros(scores_BN.shape), np.zeros(scores_BN.shape)
    place_N = np.where(suspect_N, np.cumsum(suspect_N), np.cumsum(~suspect_N))
    for scores_N, judged_N, won_N, made_N in zip(scores_BN, judged_BN, won_BN, made_BN, strict=True):
        suspect, clean = np.flatnonzero(judged_N & suspect_N), np.flatnonzero(judged_N & ~suspect_N)
        made_SC = np.ones((len(suspect), len(clean)))
        if paired:
            made_SC[place_N[suspect, None] == place_N[clean]] = 0.0
        won_SC = (np.sign(scores_N[suspect, None] - scores_N[clean]) + 1) / 2 * made_SC
        for sums_N, parts_SC in ((won_N, won_SC), (made_N, made_SC)):
            sums_N[suspect], sums_N[clean] = parts_SC.sum(axis=1), parts_SC.sum(axis=0)
    return Comparisons(won_BN=won_BN, made_BN=made_BN, suspect_N=suspect_N, paired=paired)


def _interval(area: float, variance: float, fewest: int) -> tuple[float, float]:
    """An interval that is symmetric in log odds.

    At an area of 0 or 1 the variance says nothing. There the interval is that of a share of 0 or 1 among `fewest`
    independent comparisons.
    """
    if not math.isfinite(variance):
        return 0.0, 1.0
    if area in (0.0, 1.0):
        reach = 1 - float((OUTSIDE / 2) ** (1 / fewest))
        return (0.0, reach) if area == 0.0 else (1 - reach, 1.0)
    # Student's, because the variance, too, is known from few prompts
    quantile = float(special.stdtrit(fewest - 1, 1 - OUTSIDE / 2))
    half = quantile * math.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return float(low), float(high)
