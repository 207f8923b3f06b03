"""A design: a linear lens on four of the white coordinates of z.

The loss stays convex, and an optimiser comes near its optimum in forty steps. With all 64 coordinates and a few
thousand rows it would take six hundred (docs/decisions/0051).
"""

import torch

from alens.lens.designs.design import AffineDesign, Ground

COORDINATES = 4


class FewCoordinates(AffineDesign):
    """`weight` (heads, 4, vocabulary) and `bias` (heads, vocabulary)."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        vocabulary = len(ground.log_mean_output_V)
        self.weight = torch.nn.Parameter(torch.zeros(ground.num_heads, COORDINATES, vocabulary))
        self.bias = torch.nn.Parameter(ground.log_mean_output_V.float().expand(ground.num_heads, -1).clone())

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        rest = self.ground.width - COORDINATES
        return torch.nn.functional.pad(self.weight, (0, 0, 0, rest)), self.bias
