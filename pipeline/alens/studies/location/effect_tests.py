"""The effect of each head on a score: how it is tested, and how sure it is.

In: rates of prompts and of controls (or of the mean output). Out: a `ReaderEffect` for each head, with a p-value from a
permutation test and an interval by Welch's t: studies have some ten prompts, where the percentile bootstrap is too
narrow (docs/decisions/0022).
Shapes: P prompts, F heads, G groups of prompts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alens.statistics import corrections, permutation
from alens.statistics.bootstrap import Array
from alens.statistics.permutation import HeadTests
from alens.studies.location.result import AnswerFigures, ModelAnswers, ReaderEffect
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import Rates


def tested_effects(
    rates: Rates,
    controls: Rates | None,
    mean: Rates | None,
    settings: LocateSettings,
    alternative: str,
) -> tuple[list[ReaderEffect], HeadTests]:
    """The effect of each reader. `mean` are the rates in the mean output, which takes the place of missing controls."""
    options: dict[str, Any] = {
        "correction": settings.correction,
        "alternative": alternative,
        "permutations": settings.permutations,
        "seed": settings.seed,
    }
    beside = controls or mean
    assert beside is not None
    if controls is None or settings.paired:
        differences_PF = rates.log_p_PF - beside.log_p_PF
        tests = permutation.one_group(differences_PF, skewed=controls is None, **options)
        half_F = _half_width([differences_PF], settings.alpha)
        above_F = (differences_PF > 0).mean(0).tolist()
    else:
        tests = permutation.two_groups(rates.log_p_PF, controls.log_p_PF, **options)
        half_F = _half_width([rates.log_p_PF, controls.log_p_PF], settings.alpha)
        above_F = [None] * len(tests.effect_F)
    usual_F = None if mean is None else np.broadcast_to(mean.p_PF.mean(0), rates.p_PF.shape[1:])
    p_F, beside_F = rates.p_PF.mean(0), np.broadcast_to(beside.p_PF.mean(0), rates.p_PF.shape[1:])
    effects = [
        ReaderEffect(
            effect=float(effect),
            low=float(effect - half_F[f]),
            high=float(effect + half_F[f]),
            p=float(tests.p_F[f]),
            p_corrected=float(tests.p_corrected_F[f]),
            probability=float(p_F[f]),
            control_probability=float(beside_F[f]),
            lift=None if usual_F is None else float(p_F[f] / usual_F[f]),
            share_above=above_F[f],
        )
        for f, effect in enumerate(tests.effect_F)
    ]
    return effects, tests


def _half_width(groups: Sequence[Array], alpha: float) -> Array:
    """(F,) half the width of the interval, by Student's t, or by Welch's where there are two groups."""
    from scipy import stats

    parts_GF = np.stack([group_PF.var(0, ddof=1) / len(group_PF) for group_PF in groups])
    total_F = parts_GF.sum(0)
    freedom_G1 = np.array([len(group_PF) - 1.0 for group_PF in groups])[:, None]
    inverse_F = np.sum((parts_GF / np.where(total_F > 0, total_F, 1.0)) ** 2 / freedom_G1, axis=0)
    freedom_F = 1.0 / np.where(total_F > 0, inverse_F, 1.0)  # Welch and Satterthwaite
    half_F: Array = stats.t.ppf(1.0 - alpha / 2.0, freedom_F) * np.sqrt(total_F)
    return half_F


def model_answers(
    prompts: tuple[Array, Array], controls: tuple[Array, Array] | None, *, foils: bool, alpha: float
) -> ModelAnswers:
    """How well the model does, from (P,) where it is right and (P,) its scores, on prompts and on controls."""
    return ModelAnswers(
        foils=foils,
        prompts=_figures(*prompts, alpha),
        controls=None if controls is None else _figures(*controls, alpha),
    )


def _figures(right_P: Array, score_P: Array, alpha: float) -> AnswerFigures:
    from scipy import stats

    share = stats.binomtest(round(right_P.sum()), len(right_P)).proportion_ci(1.0 - alpha, method="wilson")
    half, mean = float(_half_width([score_P[:, None]], alpha)[0]), float(score_P.mean())
    return AnswerFigures(
        right=float(right_P.mean()),
        right_low=float(share.low),
        right_high=float(share.high),
        difference=mean,
        difference_low=mean - half,
        difference_high=mean + half,
    )


def spread_ratio(rates: Rates, controls: Rates) -> float | None:
    """The ratio of the spread of the prompts' scores to that of the controls', geometric mean over heads."""
    prompts_F, controls_F = (each.log_p_PF.std(0, ddof=1) for each in (rates, controls))
    if not (prompts_F.all() and controls_F.all()):
        return None
    return float(np.exp(np.log(prompts_F / controls_F).mean()))


def smallest_corrected(
    num_prompts: int,
    num_controls: int | None,
    num_heads: int,
    settings: LocateSettings,
    alternative: str,
) -> float:
    """The least corrected p that one head could have with so many prompts when no other head shows anything."""
    least = permutation.smallest_p(
        num_prompts,
        num_controls,
        alternative=alternative,
        permutations=settings.permutations,
        paired=settings.paired,
    )
    return corrections.smallest_corrected(least, num_heads, settings.correction)
