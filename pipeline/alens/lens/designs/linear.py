"""`linear`: the paper's lens, on z.

The paper (arXiv 2310.16270) fits `logits = a W + b` on the head's output `a`, W in R^{D x V}. As
`a = z W_O`, W acts only through `W_O W` in R^{E x V}; that is what is fitted here: the same functions,
D / E times fewer numbers. Departure: it starts from zero weights and the log mean output, not from the
unembedding; the problem is convex, so only the speed differs.
Shapes: H heads, E d_head, V vocabulary.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Linear(nn.Module):
    """The lenses of one layer's heads: `weight` (H, E, V) and `bias` (H, V), float32."""

    def __init__(self, *, num_heads: int, d_head: int, log_mean_output_V: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_heads, d_head, len(log_mean_output_V)))
        self.bias = nn.Parameter(log_mean_output_V.float().expand(num_heads, -1).clone())

    def forward(self, use: Callable[[torch.Tensor, torch.Tensor], T]) -> T:
        """`use(weight (H, E, V), bias (H, V))`, for the map logits = z weight + bias.

        What needs the map runs in here, so that ZeRO-3 may gather the parameters before and free them after.
        """
        return use(self.weight, self.bias)
