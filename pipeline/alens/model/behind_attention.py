"""What a block does to the output of its attention before it adds it to the residual stream: a norm, a factor, or nothing.

In: TransformerLens' bridge, and W_O and b_O as the parameters hold them. Out: for each layer a `BehindAttention`. Gain and
factor are folded into W_O, so what is left of a row is one number, the scale that the norm divides by: the heads of a layer
are normed together. `model/examine.py` compares the sum with what the stream gains.
Shapes: L layers, H heads, E d_head, D d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.model.bridge import attention_layers
from alens.model.last_norm import measured_norm
from alens.rows.final_norm import FinalNorm


@dataclass(frozen=True, kw_only=True)
class BehindAttention:
    """attention adds factor * (norm(sum of z W_O + b_O)), with norm(x) = linear(x) / scale + offset."""

    norm: FinalNorm | None = None
    """None: there is none."""
    factor: float = 1.0

    @property
    def is_nothing(self) -> bool:
        return self.norm is None and self.factor == 1.0

    def folded(self, output_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) float32: what an output of attention adds where the scale is 1, without `offset`."""
        output_ND = output_ND.float() if self.norm is None else self.norm.linear(output_ND.float())
        return output_ND * self.factor

    def scale(self, output_ND: torch.Tensor) -> torch.Tensor | None:
        """(N,) float32: what the norm divides a layer's output of attention by; None where there is no norm."""
        return None if self.norm is None else self.norm.scale(output_ND)

    @property
    def offset_D(self) -> torch.Tensor | float:
        """What is added to every row, beside the bias."""
        return 0.0 if self.norm is None else self.norm.offset_D * self.factor

    def added(self, output_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) float32: what the block adds to the stream of an output of attention."""
        scale_N = self.scale(output_ND)
        folded_ND = self.folded(output_ND)
        return (folded_ND if scale_N is None else folded_ND / scale_N[..., None]) + self.offset_D


def behind_attention(bridge: Any, d_model: int, device: torch.device) -> tuple[BehindAttention, ...]:
    """One for each layer; nothing for a norm of an unknown kind, which the examination then notices."""
    layers = attention_layers(bridge)
    made = []
    for layer, block in enumerate(bridge.blocks):
        component = getattr(getattr(block, "ln1_post", None), "original_component", None)
        norm = None if component is None or layer not in layers else measured_norm(component, d_model)
        factor = float(getattr(block, "residual_contribution_scale", 1.0))
        made.append(BehindAttention(norm=None if norm is None else norm.to(device), factor=factor))
    return tuple(made)


def fold(
    W_O_LHED: torch.Tensor, b_O_LD: torch.Tensor, behind: Sequence[BehindAttention]
) -> tuple[torch.Tensor, torch.Tensor]:
    """W_O and b_O of what reaches the stream, float32; as they are where nothing stands behind the attention of any layer."""
    if all(one.is_nothing for one in behind):
        return W_O_LHED, b_O_LD
    W_O = torch.stack([one.folded(W_O_HED) for one, W_O_HED in zip(behind, W_O_LHED, strict=True)])
    return W_O, torch.stack([one.folded(b_O_D) for one, b_O_D in zip(behind, b_O_LD, strict=True)])
