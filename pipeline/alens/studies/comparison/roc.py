"""How well scores tell two sets of prompts apart: the ROC curve and what is read off it.

In: scores of judged prompts, which are suspect, and for each which fit scored it. Out: `Separation`.
Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve" (1982): the area is the
share of (suspect, clean) pairs in which the suspect prompt scores higher, a tie counting half.
Shapes: N prompts, S suspect, C clean, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from alens.evaluation import bootstrap

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

RATES = (0.01, 0.05)
"""False positive rates at which the true positive rate is told."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well a score tells suspect from clean prompts, on prompts it was not fitted on."""

    auc: float
    """Area under the ROC curve, over pairs that one fit scored: 0.5 is chance."""
    low: float
    """Of the 95 % bootstrap interval of the area, over judged prompts: what fitting adds is not in it."""
    high: float
    tpr_at_1_percent: float | None
    """Share of suspect prompts found when at most 1 % of clean ones raise an alarm; None below 100 clean prompts."""
    tpr_at_5_percent: float | None
    """The same at 5 %; None below 20 clean prompts."""
    balanced_accuracy: float | None
    """Mean of the shares told rightly in either set, at the score's own threshold; None where it has none."""
    false_positive_rate: list[float]
    """The ROC curve, from (0, 0) to (1, 1); all judged prompts together."""
    true_positive_rate: list[float]


def separation(
    scores: Sequence[Array], suspect: Sequence[Labels], alarms: Sequence[Labels] | None, *, seed: int
) -> Separation:
    """One array a fit. Raises `ValueError` unless both kinds were judged by some fit."""
    pairs = [(one, flags) for one, flags in zip(scores, suspect, strict=True)]
    low, high = _interval(pairs, seed)
    scores_N, suspect_N = np.concatenate(scores), np.concatenate(suspect)
    fpr, tpr = curve(scores_N, suspect_N)
    found_at = [float(tpr[fpr <= rate].max()) if rate * (~suspect_N).sum() >= 1 else None for rate in RATES]
    accuracy = None
    if alarms is not None:
        alarms_N = np.concatenate(alarms)
        accuracy = float((alarms_N[suspect_N].mean() + (~alarms_N[~suspect_N]).mean()) / 2)
    return Separation(
        auc=area(scores, suspect),
        low=low,
        high=high,
        tpr_at_1_percent=found_at[0],
        tpr_at_5_percent=found_at[1],
        balanced_accuracy=accuracy,
        false_positive_rate=fpr.tolist(),
        true_positive_rate=tpr.tolist(),
    )


def area(scores: Sequence[Array], suspect: Sequence[Labels]) -> float:
    """Over pairs within each fit: scores of different fits need not have the same scale."""
    wins = pairs = 0.0
    for one, flags in zip(scores, suspect, strict=True):
        if flags.any() and not flags.all():
            num_suspect = int(flags.sum())
            wins += float(stats.rankdata(one)[flags].sum()) - num_suspect * (num_suspect + 1) / 2
            pairs += num_suspect * int((~flags).sum())
    if not pairs:
        raise ValueError("no fit judged both clean and suspect prompts")
    return wins / pairs


def curve(scores_N: Array, suspect_N: Labels) -> tuple[Array, Array]:
    """False and true positive rates as the threshold falls; equal scores make one step."""
    order = np.argsort(-scores_N, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores_N[order])), len(order) - 1)
    true = np.cumsum(suspect_N[order])[ends] / suspect_N.sum()
    false = np.cumsum(~suspect_N[order])[ends] / (~suspect_N).sum()
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def _interval(pairs: Sequence[tuple[Array, Labels]], seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the area, drawing clean and suspect prompts of each fit for themselves."""
    wins_R, pairs_R = np.zeros(bootstrap.RESAMPLES), 0.0
    for number, (scores, flags) in enumerate(pairs):
        suspect_S, clean_C = scores[flags], scores[~flags]
        if not len(suspect_S) or not len(clean_C):
            continue
        won_SC = (np.sign(suspect_S[:, None] - clean_C[None]) + 1) / 2
        drawn_RS, drawn_RC = (
            bootstrap.counts(0, bootstrap.RESAMPLES, size, 1000 * seed + 2 * number + kind)
            for kind, size in enumerate((len(suspect_S), len(clean_C)))
        )
        wins_R += ((drawn_RS @ won_SC) * drawn_RC).sum(axis=1)
        pairs_R += won_SC.size
    return bootstrap.interval(wins_R / pairs_R)
