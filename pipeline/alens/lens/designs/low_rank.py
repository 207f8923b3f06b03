"""`low-rank`: the linear lens as a product of two small maps, `weight = down up`.

It has R (E + V) numbers for each head in place of E V: what a head says, as R directions of z with a list of tokens each.
It starts at the mean output, where `up` is zero and `down` is random so that gradients flow, or at the closed form, cut to
rank R where that loses least: z and W_U are both white there, so the largest singular values are kept.
Shapes: H heads, E d_head, R rank, D d_model, V vocabulary.
"""

import torch
from torch import nn

from alens.errors import RequestError
from alens.lens.closed_form import ClosedForm, normal_bias
from alens.lens.designs.design import Ground, ProductDesign, small
from alens.lens.designs.white_unembedding import WhiteUnembedding

DOWN_PACE = 0.1
"""How fast `down` moves from the closed form: its numbers are small, and each moves all logits."""


class LowRank(ProductDesign):
    """`down` (H, E, R), over the pace at which it is trained, `up` (H, R, V) and `bias` (H, V), float32."""

    starts_at_closed_form = True

    def __init__(self, ground: Ground, *, rank: int = 8) -> None:
        """Raises `RequestError` for a rank that is not in 1 .. E."""
        super().__init__(ground)
        if type(rank) is not int or not 1 <= rank <= ground.width:
            raise RequestError(
                f"rank is {rank!r}: it must be a whole number in 1 .. {ground.width}, the width of the values"
            )
        H, E, V = ground.num_heads, ground.width, len(ground.log_mean_output_V)
        self.down = nn.Parameter(ground.random(H, E, rank) * small(1.0, E))
        self.up = nn.Parameter(torch.zeros(H, rank, V, device=ground.log_mean_output_V.device))
        self.bias = nn.Parameter(ground.log_mean_output_V.float().expand(H, -1).clone())
        self.down_pace = 1.0 if ground.pace_H is None else DOWN_PACE

    def start_at(self, closed: ClosedForm) -> None:
        white = WhiteUnembedding.on(self.ground)
        map_HED = closed.white(self.ground.whitening).to(self.up.device) @ white.unroot_DD
        left_HEK, values_HK, right_HKD = torch.linalg.svd(map_HED, full_matrices=False)
        kept = min(self.down.shape[2], values_HK.shape[1])  # more rank than d_model stays random, times zero
        up_HRD = values_HK[:, :kept, None] * right_HKD[:, :kept]
        with torch.no_grad():
            self.down[:, :, :kept] = left_HEK[:, :, :kept] / self.down_pace
            self.up[:, :kept] = up_HRD @ white.basis_DV
            self.bias.copy_(normal_bias(self.affine()[0], self.ground.log_mean_output_V))

    def affine_of(self, *parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        down_HER, up_HRV, bias_HV = parameters
        return torch.bmm(down_HER * self.down_pace, up_HRV), bias_HV
