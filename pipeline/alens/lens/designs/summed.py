"""`summed`: LensA of the published code. The readings of a layer's heads are summed before the loss.

A layer has one loss: heads share the work of predicting the model's output, as they do when they write into one
residual stream. Each head keeps its own weight, which starts at zero, and has an equal part of the bias.
Read alone, the lens of a head says only its part of the sum.
Shapes: H heads, N rows, E d_head, V vocabulary.
"""

import torch
from torch import nn

from alens.lens.designs.design import AffineDesign, Ground
from alens.lens.designs.readout import Readout
from alens.lens.maps import AffineMaps


class Summed(AffineDesign):
    """`weight` (H, E, V) and one `bias` (V), float32."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        V = len(ground.log_mean_output_V)
        self.weight = nn.Parameter(
            torch.zeros(ground.num_heads, ground.width, V, device=ground.log_mean_output_V.device)
        )
        self.bias = nn.Parameter(ground.log_mean_output_V.float().clone())

    @property
    def num_losses(self) -> int:
        return 1

    def nothing(self) -> AffineMaps:
        """Maps with zero weights: each head has its part of the mean output."""
        H, E, log_mean_V = self.ground.num_heads, self.ground.width, self.ground.log_mean_output_V.float()
        return AffineMaps(
            weight_HEV=log_mean_V.new_zeros(H, E, len(log_mean_V)), bias_HV=(log_mean_V / H).repeat(H, 1)
        )

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        H = self.ground.num_heads
        return self.weight, (self.bias / H).expand(H, -1)

    def readout(self, white_HNE: torch.Tensor) -> Readout:
        # Side by side, the heads' values are one long vector: one product sums their readings.
        joined_NF = white_HNE.transpose(0, 1).flatten(1)
        return Readout(joined_NF[None], self.weight.flatten(0, 1)[None], self.bias[None])
