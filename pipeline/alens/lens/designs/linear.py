"""`linear`: the lens of the paper, on z.

The paper (arXiv 2310.16270) fits `logits = a W + b` on the head's output `a`, W in R^{D x V}. Since `a = z W_O`, W acts
only through `W_O W` in R^{E x V}, which is fitted here: the same functions with D / E times fewer numbers. Departure from
the paper: the fit starts at the closed form, or from zero weights and the log mean output, not from the unembedding; the
problem is convex, so only the speed differs.
Shapes: H heads, E d_head, V vocabulary.
"""

import torch
from torch import nn

from alens.lens.closed_form import ClosedForm
from alens.lens.designs.design import AffineDesign, Ground
from alens.lens.designs.readout import Readout


class Linear(AffineDesign):
    """`weight` (H, E, V) and `bias` (H, V), float32, over the pace of each head: so one learning rate suits all."""

    starts_at_closed_form = True

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        vocabulary = len(ground.log_mean_output_V)
        self.weight = nn.Parameter(
            torch.zeros(ground.num_heads, ground.width, vocabulary, device=ground.log_mean_output_V.device)
        )
        self.bias = nn.Parameter(ground.log_mean_output_V.float() / ground.pace_H11[:, 0])

    def start_at(self, closed: ClosedForm) -> None:
        ground = self.ground
        weight_HEV, bias_HV = closed.affine(ground.W_U_DV, ground.log_mean_output_V, ground.whitening)
        with torch.no_grad():
            self.weight.copy_(weight_HEV / ground.pace_H11)
            self.bias.copy_(bias_HV / ground.pace_H11[:, 0])

    def readout(self, white_HNE: torch.Tensor) -> Readout:
        # The pace goes to the values, which are fewer than the weights.
        return Readout(white_HNE * self.ground.pace_H11, self.weight, self.bias * self.ground.pace_H11[:, 0])

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight * self.ground.pace_H11, self.bias * self.ground.pace_H11[:, 0]
