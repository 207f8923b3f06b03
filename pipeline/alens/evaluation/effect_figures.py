"""Readings judged by cause: what they say that a head adds, held against what the model loses without it.

In: readings of some rows, and the measured effects of the heads there (`store.effect_reader`). Out: for each head and reading
the correlation with the effect over rows and tokens, the share of the effect's variance that it explains, and how often both
have the same sign, with intervals over documents. Effect and addition are centred over the vocabulary in every row.
docs/metrics.md has the formulas.
Shapes: N rows, B rows of a block, D d_model, V vocabulary, G groups, Q readings, C sums, X resamples (or 1: all rows).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from alens.evaluation.additions import Addition, CentredProducts, Matrices
from alens.machine.blocks import row_blocks
from alens.statistics.bootstrap import Array, finite_interval, resampled_means

CHANGED = 0.2
"""Logits: tokens that change by more are asked for the sign."""

TOP_TOKENS = 10
"""So many tokens of each row that change most are asked too, however little."""

SIGN_ROWS = 256
"""Rows whose signs are compared; they need each logit of each row, which the other figures do not."""

PRODUCT, ADDED, EFFECT, CHANGES, SAME, TOP, TOP_SAME, ROWS = range(8)
"""The sums of a group: of products, of the squares of additions and of effects; tokens that change and how many of them have
the sign of the addition; the same of those that change most; rows."""

FIGURES = ("correlation", "explained_variance", "sign_agreement", "top10_sign_agreement")

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class EffectFigures:
    """How a reading of a head agrees with the effect of that head. None where nothing changes, or the reading is constant."""

    correlation: float | None
    """Over tokens and rows, of what the reading says the head adds and what the model loses without it."""
    explained_variance: float | None
    """The share of the variance of the effect: 1 minus that of what is left. Below 0 where the reading is too large."""
    sign_agreement: float | None
    """The share of the tokens that change by more than 0.2 logits with the sign that the reading says."""
    top10_sign_agreement: float | None
    """The same of the ten tokens of each row that change most."""
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    """The 95 % interval of each, by bootstrap over documents or sequences."""


@dataclass(frozen=True, kw_only=True)
class EffectSize:
    """How much the model loses without a head."""

    size: float
    """The root of the mean square over rows and tokens, in logits."""
    changed_tokens: float
    """Tokens a row that change by more than 0.2 logits."""


def effect_sums(
    effect_ND: torch.Tensor,
    additions: Mapping[str, Addition],
    products: CentredProducts,
    group_N: torch.Tensor,
    num_groups: int,
) -> torch.Tensor:
    """(G, Q, C) float64 sums of one head's readings on N rows, in the order of `additions`."""
    N = len(effect_ND)
    values_QNC = torch.zeros(len(additions), N, ROWS + 1, dtype=torch.float64, device=effect_ND.device)
    values_QNC[..., ROWS] = 1
    values_QNC[..., EFFECT] = products.squares(effect_ND)
    kept: Matrices = {}
    for q, addition in enumerate(additions.values()):
        values_QNC[q, :, PRODUCT], values_QNC[q, :, ADDED] = products.of(addition, effect_ND, kept)
    asked_S = torch.arange(0, N, max(1, -(-N // SIGN_ROWS)), device=effect_ND.device)
    for block in row_blocks(len(asked_S), effect_ND.device):
        rows_B = asked_S[block]
        effect_BV = Addition(features_NF=effect_ND, weight_FV=products.W_U_DV).logits(rows_B)
        size_BV = effect_BV.abs()
        changed_BV = size_BV > CHANGED
        top_BK = size_BV.topk(min(TOP_TOKENS, size_BV.shape[1]), dim=1).indices
        for q, addition in enumerate(additions.values()):
            same_BV = addition.logits(rows_B).mul_(effect_BV) > 0
            values_QNC[q, rows_B, CHANGES] = changed_BV.sum(1).double()
            values_QNC[q, rows_B, SAME] = (same_BV & changed_BV).sum(1).double()
            values_QNC[q, rows_B, TOP] = float(top_BK.shape[1])
            values_QNC[q, rows_B, TOP_SAME] = same_BV.gather(1, top_BK).sum(1).double()
    sums_GQC = values_QNC.new_zeros(num_groups, len(additions), ROWS + 1)
    return sums_GQC.index_add_(0, group_N, values_QNC.transpose(0, 1))


def effect_figures(sums_GQC: Array, *, seed: int, resamples: int) -> list[EffectFigures]:
    """The figures of each reading, from sums by group."""
    sums_GQC = sums_GQC[sums_GQC[:, 0, ROWS] > 0]
    groups, Q, C = sums_GQC.shape
    whole = _figures(sums_GQC.sum(0)[None])
    resampled = None
    if groups > 1:
        sums_RC = resampled_means(
            sums_GQC.reshape(groups, -1), np.ones(groups), seed=seed, resamples=resamples
        )
        resampled = _figures(sums_RC.reshape(-1, Q, C))

    def interval(name: str, q: int) -> Interval | None:
        return None if resampled is None else finite_interval(resampled[name][:, q], groups=groups)

    figures = []
    for q in range(Q):
        values = {name: float(whole[name][0, q]) for name in FIGURES}
        known = {name: value if np.isfinite(value) else None for name, value in values.items()}
        intervals = {name: None if known[name] is None else interval(name, q) for name in FIGURES}
        figures.append(EffectFigures(**known, intervals=intervals))
    return figures


def head_effect(sums_GQC: Array, vocabulary: int) -> EffectSize:
    """How large the effect is, from the sums of any of the readings."""
    sums_C = sums_GQC[:, 0].sum(0)
    asked_rows = sums_C[TOP] / min(TOP_TOKENS, vocabulary)
    return EffectSize(
        size=float(np.sqrt(sums_C[EFFECT] / (sums_C[ROWS] * vocabulary))),
        changed_tokens=float(sums_C[CHANGES] / max(1.0, asked_rows)),
    )


def _figures(sums_XQC: Array) -> dict[str, Array]:
    """(X, Q) each figure; not a number where it is not defined."""
    product, added, effect = (sums_XQC[..., column] for column in (PRODUCT, ADDED, EFFECT))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "correlation": product / np.sqrt(added * effect),
            "explained_variance": (2 * product - added) / effect,
            "sign_agreement": sums_XQC[..., SAME] / sums_XQC[..., CHANGES],
            "top10_sign_agreement": sums_XQC[..., TOP_SAME] / sums_XQC[..., TOP],
        }
