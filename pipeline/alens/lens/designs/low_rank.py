"""`low-rank`: the linear lens as a product of two small maps, `weight = down up`.

It has R (E + V) numbers for each head in place of E V: what a head says, as R directions of z with a list of tokens each.
It starts at the mean output: `up` is zero, and `down` is random so that gradients flow.
Shapes: H heads, E d_head, R rank, V vocabulary.
"""

import torch
from torch import nn

from alens.errors import RequestError
from alens.lens.designs.design import AffineDesign, Ground, small


class LowRank(AffineDesign):
    """`down` (H, E, R), `up` (H, R, V) and `bias` (H, V), float32."""

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

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.bmm(self.down, self.up), self.bias
