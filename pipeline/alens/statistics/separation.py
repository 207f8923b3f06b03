"""How well scores tell two sets of prompts apart: the ROC curve and figures from it.

In: scores of judged prompts, which are suspect, and the comparisons that make its area. Out: `Separation`.
Shapes: N prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alens.statistics.area import Comparisons, Labels
from alens.statistics.bootstrap import Array

RATES = (0.01, 0.05)
"""False positive rates at which the true positive rate is given."""
JUDGED, REFITTED = "judged prompts", "judged prompts and refits"


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well a score tells suspect from clean prompts, on prompts it was not fitted on."""

    auc: float
    """Area under the ROC curve, over comparisons within a fit and not within a pair: 0.5 is chance."""
    low: float
    """The lower end of the 95 % interval of the area."""
    high: float
    """The upper end."""
    interval_over: str
    """`judged prompts and refits`: the interval of the mean area of detectors that are fitted and judged on other prompts.
    `judged prompts`: the interval of this detector, as it was fitted, on other prompts."""
    tpr_at_1_percent: float | None
    """Share of suspect prompts that raise an alarm when at most 1 % of clean ones do; None below 100 clean prompts."""
    tpr_at_5_percent: float | None
    """The same at 5 %; None below 20 clean prompts."""
    balanced_accuracy: float | None
    """Mean of the two shares of prompts that are classed rightly, at the score's own threshold; None without one."""
    false_positive_rate: list[float]
    """The ROC curve, from (0, 0) to (1, 1), over all judged prompts together."""
    true_positive_rate: list[float]


def separation(
    scores: Sequence[Array],
    suspect: Sequence[Labels],
    alarms: Sequence[Labels] | None,
    compared: Comparisons,
    refitted: tuple[float, float] | None = None,
) -> Separation:
    """The curve from scores, one array a fit; the area from `compared`; the interval from `compared` or `refitted`."""
    low, high = refitted or compared.interval()
    scores_N, suspect_N = np.concatenate(scores), np.concatenate(suspect)
    fpr, tpr = curve(scores_N, suspect_N)
    rates = [float(tpr[fpr <= rate].max()) if rate * (~suspect_N).sum() >= 1 else None for rate in RATES]
    accuracy = None
    if alarms is not None:
        alarms_N = np.concatenate(alarms)
        accuracy = float((alarms_N[suspect_N].mean() + (~alarms_N[~suspect_N]).mean()) / 2)
    return Separation(
        auc=compared.area,
        low=low,
        high=high,
        interval_over=JUDGED if refitted is None else REFITTED,
        tpr_at_1_percent=rates[0],
        tpr_at_5_percent=rates[1],
        balanced_accuracy=accuracy,
        false_positive_rate=fpr.tolist(),
        true_positive_rate=tpr.tolist(),
    )


def curve(scores_N: Array, suspect_N: Labels) -> tuple[Array, Array]:
    """False and true positive rates as the threshold falls; equal scores make one step."""
    order = np.argsort(-scores_N, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores_N[order])), len(order) - 1)
    true = np.cumsum(suspect_N[order])[ends] / suspect_N.sum()
    false = np.cumsum(~suspect_N[order])[ends] / (~suspect_N).sum()
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])
