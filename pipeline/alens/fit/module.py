"""The lenses of a fit as one torch module: whitened z in, the loss of every head out.

Shapes: N rows, H heads, E d_head, V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import nn

from alens.fit.objectives.forward_kl import forward_kl
from alens.lens.designs.linear import Linear
from alens.lens.whitening import Whitening
from alens.teacher import Teacher


class LensModule(nn.Module):
    """One design a layer. Parameters act on whitened z; `folded` gives lenses that act on z."""

    def __init__(self, *, whitening: Mapping[int, Whitening], log_mean_output_V: torch.Tensor) -> None:
        super().__init__()
        self.whitening = dict(whitening)
        self.designs = nn.ModuleDict()
        for layer, coordinates in self.whitening.items():
            num_heads, d_head = coordinates.mean_HE.shape
            self.designs[str(layer)] = Linear(
                num_heads=num_heads, d_head=d_head, log_mean_output_V=log_mean_output_V
            )

    def forward(self, z_NHE: Mapping[int, torch.Tensor], teacher: Teacher) -> torch.Tensor:
        """(L, H) float32: the mean loss of each head over the rows."""
        losses = []
        for layer, coordinates in self.whitening.items():
            white_HNE = coordinates.white(z_NHE[layer])
            losses.append(self.designs[str(layer)](lambda w, b, z=white_HNE: forward_kl(z, w, b, teacher)))
        return torch.stack(losses)

    def folded(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E, V) and (H, V): the lenses of a layer on z. The parameters must be gathered."""
        weight_HEV, bias_HV = self.designs[str(layer)](lambda w, b: (w.detach(), b.detach()))
        return self.whitening[layer].fold(weight_HEV, bias_HV)
