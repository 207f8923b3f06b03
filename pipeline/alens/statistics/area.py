"""The area under a ROC curve of detectors that were fitted several times, and its 95 % interval.

In: scores of prompts by fit, and which prompts each fit judged. Out: `Comparisons`.
The area is the share of (suspect, clean) comparisons in which the suspect prompt scores higher, a tie counting half
(Hanley and McNeil, 1982); only prompts that one fit judged are compared, and never the two of a pair: twins differ in
less than strangers, and a detector meets strangers. The interval leaves out one prompt, or pair, at a time:
- fits as they are: what other judged prompts would have given;
- fits on bootstrap draws: fits that drew the prompt go with it, so that it is missed both where it was judged and
  where it was fitted on. Efron and Tibshirani, "Improvements on Cross-Validation: The .632+ Bootstrap Method" (1997),
  less what too few draws add: Wager, Hastie and Efron, "Confidence Intervals for Random Forests" (2014).
Shapes: B fits, N prompts, S suspect, C clean, U units that are left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

OUTSIDE = 0.05
"""The share of samples whose interval may miss the area."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What each prompt took part in, fit by fit."""

    won_BN: Array
    """Comparisons that the suspect prompt won; a tie is half a one."""
    made_BN: Array
    suspect_N: Labels
    paired: bool

    @property
    def area(self) -> float:
        """0.5 is chance. Raises `ValueError` unless some fit judged both kinds."""
        made = self.made_BN[:, self.suspect_N].sum()
        if not made:
            raise ValueError("no fit judged both clean and suspect prompts")
        return float(self.won_BN[:, self.suspect_N].sum() / made)

    def interval(self, undrawn_BN: Labels | None = None, around: float | None = None) -> tuple[float, float]:
        """The 95 % interval of the area; with `undrawn_BN`, which fits did not draw which prompts, over refits too.

        `around` is a better estimate of the area, if there is one.

        From 0 to 1 where a kind has one prompt alone: nothing is known of how such prompts vary.
        """
        variance = self._variance(np.ones(self.won_BN.shape, bool))
        if undrawn_BN is not None:
            variance = max(variance, self._variance(undrawn_BN) - self._noise())
        num_suspect = int(self.suspect_N.sum())
        area = self.area if around is None else around
        return _interval(area, variance, min(num_suspect, len(self.suspect_N) - num_suspect))

    def _units(self, what_BN: Array) -> list[Array]:
        """(B, U) of clean prompts and of suspect ones; of pairs alone where there are pairs."""
        both = [what_BN[:, ~self.suspect_N], what_BN[:, self.suspect_N]]
        return [both[0] + both[1]] if self.paired else both

    def _variance(self, kept_BN: Labels) -> float:
        won_B1, made_B1 = (
            what[:, self.suspect_N].sum(axis=1, keepdims=True) for what in (self.won_BN, self.made_BN)
        )
        found = 0.0
        for won_BU, made_BU, kept_BU in zip(
            *map(self._units, (self.won_BN, self.made_BN, kept_BN.astype(np.float64))), strict=True
        ):
            kept_BU = kept_BU > 0
            with np.errstate(invalid="ignore"):  # nothing is left of a kind that has one prompt
                left_U = ((won_B1 - won_BU) * kept_BU).sum(0) / ((made_B1 - made_BU) * kept_BU).sum(0)
            found += (len(left_U) - 1) * float(left_U.var())
        return found

    def _noise(self) -> float:
        """What the number of draws adds to the variance."""
        won_B, made_B = (what[:, self.suspect_N].sum(axis=1) for what in (self.won_BN, self.made_BN))
        apart_B = (won_B - self.area * made_B) / made_B.mean()
        units = sum(one.shape[1] for one in self._units(self.won_BN))
        return float((math.e - 1) * units / len(apart_B) * np.square(apart_B).mean())


def comparisons(scores_BN: Array, judged_BN: Labels, suspect_N: Labels, *, paired: bool) -> Comparisons:
    """All of them. With `paired` there are as many clean as suspect prompts, in the same order."""
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
    """Symmetric in log odds. At 0 and 1 the variance says nothing: there, how few might have been lost or won by
    chance in as many comparisons of which no two share a prompt."""
    if not math.isfinite(variance):
        return 0.0, 1.0
    if area in (0.0, 1.0):
        reach = 1 - float((OUTSIDE / 2) ** (1 / fewest))
        return (0.0, reach) if area == 0.0 else (1 - reach, 1.0)
    quantile = float(stats.t.ppf(1 - OUTSIDE / 2, fewest - 1))  # the variance is of a few prompts as well
    half = quantile * math.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return float(low), float(high)
