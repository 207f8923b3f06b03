"""The closed form: a lens of each head without a fit, from moments alone.

The final residual (after the model's last norm) is regressed on z of a head by least squares, and what is predicted is
unembedded. In: a cache with these moments, or with the exact teacher. Out: by layer, a `ClosedForm`: an E x D map a head, and the share of the
final residual's variance that it explains; from it, with `W_U`, an affine lens. No pass over rows x vocabulary is made.
Departure from the Tuned Lens (arXiv 2303.08112): nothing is trained, and there is no norm between map and unembedding.
Shapes: H heads, E d_head, D d_model, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError
from alens.heads import Heads
from alens.rows import moments
from alens.store import final_moments
from alens.store.cache_reader import Cache

if TYPE_CHECKING:  # `alens info` asks for r2 alone, which needs no torch
    import torch

    from alens.lens.whitening import Whitening

Array = npt.NDArray[np.float64]

RIDGE = 1e-6
"""Added to each variance of z, as a share of the head's largest: float16 rounding is about as large, and must not be
blown up."""

MEAN_RIDGE = 1e-12
"""Added too, as a share of the squared mean: a head that always says the same has no variance but rounding."""

NOISE_ROWS = 2.0
"""How many rows count as one where noise is estimated: rows of a sequence resemble each other."""

MOST_PENALTY = 3.0
"""The largest penalty, as a share of the mean variance of z: that of a head that explains no more than noise would."""

TINY = float(np.finfo(np.float32).tiny)

ENOUGH_ROWS = 131_072
"""Rows that are summed where stage one kept no moments."""


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """The regression of the final residual on z, for heads of one layer: `final = mean_final + (z - mean) T`.

    All arrays are float64. A head whose z does not vary has zeros in `T_HED` and in `r2_H`.
    """

    T_HED: Array
    mean_HE: Array
    covariance_HEE: Array
    """The covariance of z, over the rows of the regression."""
    mean_final_D: Array
    r2_H: Array
    """The share of the variance of the final residual, summed over D, that z explains linearly on these rows."""
    num_rows: int

    def white(self, whitening: "Whitening") -> "torch.Tensor":
        """(H, E, D) float32: the map on white z."""
        import torch

        unwhite_HEE: torch.Tensor = torch.linalg.inv(whitening.scale_HEE.double().cpu())
        return (unwhite_HEE @ torch.from_numpy(self.T_HED)).float()

    def affine(
        self, W_U_DV: "torch.Tensor", log_mean_output_V: "torch.Tensor", whitening: "Whitening"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """(H, E, V) weight and (H, V) bias on white z, float32, on the device of `W_U_DV`."""
        import torch

        log_mean_V = log_mean_output_V.float()
        W_U_DV = W_U_DV.float()
        centred_DV = W_U_DV - (W_U_DV @ log_mean_V.softmax(-1))[:, None]
        weight_HEV = torch.matmul(self.white(whitening).to(W_U_DV.device), centred_DV)
        return weight_HEV, normal_bias(weight_HEV, log_mean_V)


def normal_bias(weight_HEV: "torch.Tensor", log_mean_output_V: "torch.Tensor") -> "torch.Tensor":
    """(H, V) float32: the bias on white z with which a lens of this weight has the model's mean output, for normal z.

    The mean of `exp` of a normal logit is that of its middle times `exp(variance / 2)`. Two things are taken off. What
    moves all logits of a row alike changes no distribution: logits are taken around their mean under the mean output p.
    And a row's probabilities are divided by their sum, which grows as `exp(white G white / 2)`, where G (E, E) is the
    covariance of the columns of the weight under p: a variance counts as `w (1 + G)^-1 w`. Without the first a strong
    head of a real model loses 1.2 nats, without the second one that knows everything does.
    """
    import torch

    log_mean_V = log_mean_output_V.float()
    probs_V = log_mean_V.softmax(-1)
    bias_HV = log_mean_V.repeat(len(weight_HEV), 1)
    for bias_V, weight_EV in zip(bias_HV, weight_HEV, strict=True):  # one head at a time, to save memory
        around_EV = weight_EV - (weight_EV @ probs_V)[:, None]
        grows_EE = torch.eye(len(around_EV), device=bias_V.device) + (around_EV * probs_V) @ around_EV.mT
        bias_V -= (around_EV * torch.linalg.solve(grows_EE, around_EV)).sum(0) / 2
    return bias_HV


def closed_form(cache: Cache, heads: Heads, shards: Sequence[int]) -> dict[int, ClosedForm]:
    """By layer, the closed form of `heads` over the rows at position 1 and later of `shards`.

    Raises `RequestError` for a cache that holds what is needed neither as moments nor as rows.
    """
    if (lacks := lacks_moments(cache)) is not None:
        raise RequestError(lacks)
    by_layer = (
        moments.cross_of_cache(cache, heads, shards)
        if final_moments.kept(cache.plan.settings)
        else moments.cross_of_rows(cache, heads, shards, ENOUGH_ROWS)
    )
    return {layer: regress(of_layer) for layer, of_layer in by_layer.items()}


def lacks_moments(cache: Cache) -> str | None:
    """Why there is no closed form on this cache, and what to do; None where there is one."""
    settings = cache.plan.settings
    if final_moments.kept(settings) or settings.exact_teacher:
        return None
    return (
        f"{cache.root} holds no moments of z with the final residual, and no exact teacher to make them from: "
        "cache with --final-moments for a closed form"
    )


def regress(of_layer: moments.CrossMoments) -> ClosedForm:
    """The closed form from the moments of a layer: ridge regression, the stronger the less a head explains on few rows.

    The penalty is that of Hoerl, Kennard and Baldwin (1975), noise over signal; R2 is that of least squares, without it.
    docs/decisions/0045 has the measurement.
    """
    variance_HE, axes_HEE = np.linalg.eigh(of_layer.covariance_HEE)
    variance_HE = variance_HE.clip(min=0)
    rounding_H = RIDGE * variance_HE[:, -1] + MEAN_RIDGE * np.square(of_layer.mean_HE).max(-1) + TINY
    cross_HED = axes_HEE.swapaxes(1, 2) @ of_layer.cross_HED

    def along(ridge_H: Array) -> Array:
        """(H, E, D): the map, along the axes of z."""
        map_HED: Array = cross_HED / (variance_HE + ridge_H[:, None])[:, :, None]
        return map_HED

    # With a ridge, the variance explained is 2 cov(prediction, final) - var(prediction).
    least_HED = along(rounding_H)
    predicted_H = (variance_HE[:, :, None] * np.square(least_HED)).sum((1, 2))
    explained_H = (2 * (least_HED * cross_HED).sum((1, 2)) - predicted_H).clip(min=0)
    total = of_layer.variance_final_D.sum()
    r2_H = explained_H / total if total > 0 else np.zeros_like(explained_H)
    ridge_H = rounding_H + _penalty(r2_H, of_layer.num_rows, variance_HE.shape[1]) * variance_HE.mean(1)
    return ClosedForm(
        T_HED=axes_HEE @ along(ridge_H),
        mean_HE=of_layer.mean_HE,
        covariance_HEE=of_layer.covariance_HEE,
        mean_final_D=of_layer.mean_final_D,
        r2_H=r2_H,
        num_rows=of_layer.num_rows,
    )


def _penalty(r2_H: Array, num_rows: int, d_head: int) -> Array:
    """(H,) noise over signal: what noise explains by chance, over what is explained beyond it."""
    noise_H = NOISE_ROWS * d_head / num_rows * (1 - r2_H).clip(min=0)
    penalty_H: Array = noise_H / (r2_H - noise_H).clip(min=noise_H / MOST_PENALTY + TINY)
    return penalty_H
