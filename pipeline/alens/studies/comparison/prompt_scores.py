"""A score that tells suspect prompts from clean ones, fitted on some prompts and judged on others.

In: readings of prompts, (N, V), which of them are clean, and `Split`s into prompts to fit on and to judge.
Out: `Scores` of held-out prompts. Two scores, in nats:

- contrast, fitted on clean and suspect prompts: sum over tokens of p ln(s / c), for a prompt's reading p and the mean
  readings c of clean and s of suspect prompts; that is KL(p || c) - KL(p || s). The scores of heads are added: a head
  that says nothing adds nothing. 0 is halfway between the two sets.
- anomaly, fitted on clean prompts alone: the Jensen-Shannon divergence of p from c, standardised by its mean and
  spread on the clean prompts. The scores of heads are averaged.

Both compare with what fitting prompts would score had they been left out, one by one.
Shapes: N prompts, F prompts fitted on, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.statistics.area import Labels
from alens.statistics.bootstrap import Array
from alens.statistics.divergences import jensen_shannon

FOLDS = 5
ALARMS_ON_CLEAN = 0.05
"""The anomaly score raises an alarm above this quantile of clean fitting prompts."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The numbers of the prompts to fit on, and of those to judge."""

    fit: npt.NDArray[np.int64]
    judge: npt.NDArray[np.int64]


def folds(groups: Sequence[str], suspect_N: Labels, number: int, seed: int, repeat: int = 0) -> list[Split]:
    """Stratified cross-validation: each prompt is judged once, together with those of its group (one text, or a pair).

    Each `repeat` divides them anew.
    """
    rng = randomness.generator(seed, randomness.FOLDS, repeat)
    suspect = {group for group, flag in zip(groups, suspect_N, strict=True) if flag}
    clean = {group for group, flag in zip(groups, suspect_N, strict=True) if not flag}
    fold_of: dict[str, int] = {}
    for stratum in (suspect & clean, suspect - clean, clean - suspect):
        own = [group for group in dict.fromkeys(groups) if group in stratum]
        for which in rng.permutation(len(own)):
            fold_of[own[which]] = len(fold_of) % number
    folds_N = np.array([fold_of[group] for group in groups])
    splits = [
        Split(fit=np.flatnonzero(folds_N != k), judge=np.flatnonzero(folds_N == k)) for k in range(number)
    ]
    return [split for split in splits if len(split.judge)]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one reading, or many together, say about the judged prompts; one array for each split."""

    contrast: list[Array]
    anomaly: list[Array]
    fitted_anomaly: list[Array]
    """The anomaly of the clean prompts that were fitted on, each left out once."""

    def __add__(self, other: Self) -> "Scores":
        def sums(mine: list[Array], theirs: list[Array]) -> list[Array]:
            return [a + b for a, b in zip(mine, theirs, strict=True)]

        return Scores(
            contrast=sums(self.contrast, other.contrast),
            anomaly=sums(self.anomaly, other.anomaly),
            fitted_anomaly=sums(self.fitted_anomaly, other.fitted_anomaly),
        )

    def averaged(self, number: int) -> "Scores":
        """These sums over `number` readings, with the anomaly as a mean."""
        return Scores(
            contrast=self.contrast,
            anomaly=[a / number for a in self.anomaly],
            fitted_anomaly=[a / number for a in self.fitted_anomaly],
        )

    def anomaly_alarms(self) -> list[Labels]:
        """For each split, which judged prompts are above the quantile of the clean ones."""
        return [
            judged > np.quantile(fitted, 1 - ALARMS_ON_CLEAN)
            for judged, fitted in zip(self.anomaly, self.fitted_anomaly, strict=True)
        ]


def score(readings_NV: torch.Tensor, suspect_N: Labels, splits: Sequence[Split]) -> Scores:
    """Scores of the judged prompts of every split, from fits on the others.

    Each split must have two clean and two suspect prompts or more to fit on.
    """
    contrast, anomaly, fitted = [], [], []
    for split in splits:
        flags_F = suspect_N[split.fit]
        clean, suspect = _Mean(readings_NV, split.fit[~flags_F]), _Mean(readings_NV, split.fit[flags_F])
        judged_NV = _chosen(readings_NV, split.judge)
        centre = (_contrast(clean, suspect, own=clean) + _contrast(clean, suspect, own=suspect)) / 2
        scores_N = judged_NV @ (suspect.log_V - clean.log_V) - centre
        apart_F = torch.cat(
            [jensen_shannon(clean.without(f), p_V)[None] for f, p_V in enumerate(clean.readings_FV)]
        )
        apart_N = torch.cat([jensen_shannon(clean.mean_V, p_V)[None] for p_V in judged_NV])
        spread = float(apart_F.std(correction=0)) or 1.0
        contrast.append(scores_N.cpu().numpy())
        anomaly.append(((apart_N - apart_F.mean()) / spread).cpu().numpy())
        fitted.append(((apart_F - apart_F.mean()) / spread).cpu().numpy())
    return Scores(contrast=contrast, anomaly=anomaly, fitted_anomaly=fitted)


class _Mean:
    """The mean of some readings, and the mean without one of them."""

    def __init__(self, readings_NV: torch.Tensor, fit: npt.NDArray[np.int64]) -> None:
        self.readings_FV = _chosen(readings_NV, fit)
        self._sum_V = self.readings_FV.sum(0)
        self.mean_V = self._sum_V / len(fit)
        self.log_V = _log(self.mean_V)

    def without(self, number: int) -> torch.Tensor:
        """(V,) the mean of all others."""
        return ((self._sum_V - self.readings_FV[number]) / (len(self.readings_FV) - 1)).clamp_min(0.0)


def _contrast(clean: _Mean, suspect: _Mean, *, own: _Mean) -> float:
    """The mean contrast of a set's fitting prompts, each scored by a fit without it."""
    total = 0.0
    for number, p_V in enumerate(own.readings_FV):
        log_own_V = _log(own.without(number))
        total += float(p_V @ (suspect.log_V - log_own_V if own is clean else log_own_V - clean.log_V))
    return total / len(own.readings_FV)


def _chosen(readings_NV: torch.Tensor, prompts: npt.NDArray[np.int64]) -> torch.Tensor:
    """(F, V) float64: the readings of some prompts."""
    return readings_NV.index_select(0, torch.from_numpy(prompts).to(readings_NV.device)).double()


def _log(p_V: torch.Tensor) -> torch.Tensor:
    return p_V.clamp_min(torch.finfo(torch.float32).tiny).log()
