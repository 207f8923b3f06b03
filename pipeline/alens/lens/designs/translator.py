"""`translator`: a small map into the residual stream, then the frozen unembedding.

It has E x D numbers for each head in place of E x V. The map goes to the space behind the model's last norm, where the
unembedding acts, so a lens stays affine: weight = T W_U, bias = c W_U + b_U. Departure from the Tuned Lens
(arXiv 2303.08112), which has the norm between the map and the unembedding: here there is no norm; `tuned` has it.
T is trained in coordinates in which W_U is white under the mean output, so that all directions are equally steep; c
starts at the least-squares fit to the log mean output.
Shapes: H heads, E width, D d_model, V vocabulary.
"""

import torch
from torch import nn

from alens.lens.designs.design import AffineDesign, Ground

SMALLEST_RATIO = 1e-4
"""Directions of W_U with less than this share of the largest variance are trained as if they had it."""


class Translator(AffineDesign):
    """`translator` (H, E, D) and `shift` (H, D), float32, in the coordinates of `basis`."""

    default_lr = 0.001
    """Every number moves all logits: with 0.03 losses rose to 40 nats at V = 49,152 (docs/decisions/0032)."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        H, E, D = ground.num_heads, ground.width, ground.W_U_DV.shape[0]
        self.basis_DV, start_D = ground.once("white unembedding", lambda: white_unembedding(ground))
        self.translator = nn.Parameter(torch.zeros(H, E, D, device=start_D.device))
        self.shift = nn.Parameter(start_D.expand(H, -1).clone())

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        weight_HEV = torch.matmul(self.translator.to(self.basis_DV.dtype), self.basis_DV)
        return weight_HEV, torch.addmm(self.ground.b_U_V, self.shift.to(self.basis_DV.dtype), self.basis_DV)


def white_unembedding(ground: Ground) -> tuple[torch.Tensor, torch.Tensor]:
    """(D, V): `R W_U`, whose rows are uncorrelated under the mean output. (D,): the start of the shift."""
    probs_V = ground.log_mean_output_V.float().softmax(-1)
    W_U_DV = ground.W_U_DV.float()
    centred_DV = W_U_DV - (W_U_DV @ probs_V)[:, None]
    covariance_DD = ((centred_DV * probs_V) @ centred_DV.T).double()
    variance_D, axes_DD = torch.linalg.eigh(covariance_DD)
    floored_D = variance_D.clamp_min(float(variance_D[-1]) * SMALLEST_RATIO)
    root_DD = (axes_DD * floored_D.rsqrt()) @ axes_DD.T
    basis_DV = root_DD.float() @ W_U_DV
    # Least squares under the mean output: basis rows are uncorrelated there, so projections suffice.
    wanted_V = ground.log_mean_output_V.float() - ground.b_U_V.float()
    start_D = (root_DD.float() @ centred_DV * probs_V) @ (wanted_V - wanted_V @ probs_V)
    return basis_DV, start_D
