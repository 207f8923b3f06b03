"""The unembedding in coordinates in which it is white under the mean output, so that all directions are equally steep.

In: a `Ground`. Out: `WhiteUnembedding`, the same for all layers of a fit. Maps into the residual stream are trained, and
cut to a rank, in these coordinates.
Shapes: H heads, E width, D d_model, V vocabulary.
"""

from dataclasses import dataclass

import torch

from alens.lens.designs.design import Ground

SMALLEST_RATIO = 1e-4
"""Directions of W_U with less than this share of the largest variance are taken as if they had it."""


@dataclass(frozen=True, kw_only=True)
class WhiteUnembedding:
    """`basis = root W_U`: its rows are uncorrelated under the mean output. All float32, on the device."""

    basis_DV: torch.Tensor
    root_DD: torch.Tensor
    unroot_DD: torch.Tensor
    """`T W_U = (T unroot) basis`."""

    @classmethod
    def on(cls, ground: Ground) -> "WhiteUnembedding":
        """Made once in a fit."""
        return ground.once("white unembedding", lambda: cls._made(ground))

    @classmethod
    def _made(cls, ground: Ground) -> "WhiteUnembedding":
        ending = ground.ending
        probs_V = ending.log_mean_V.softmax(-1)
        centred_DV = ending.W_U_DV - ending.centre_D[:, None]
        covariance_DD = ((centred_DV * probs_V) @ centred_DV.T).double()
        variance_D, axes_DD = torch.linalg.eigh(covariance_DD)
        floored_D = variance_D.clamp_min(float(variance_D[-1]) * SMALLEST_RATIO)
        root_DD = ((axes_DD * floored_D.rsqrt()) @ axes_DD.T).float()
        unroot_DD = ((axes_DD * floored_D.sqrt()) @ axes_DD.T).float()
        return cls(basis_DV=root_DD @ ending.W_U_DV, root_DD=root_DD, unroot_DD=unroot_DD)
