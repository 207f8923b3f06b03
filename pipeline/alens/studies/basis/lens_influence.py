"""How much a lens's reading changes when directions of z are ablated.

In: values of z, a lens, ablations as `subspaces.removals` makes them. Out: for each row KL(reading || reading of
the ablated z), in nats: sigma(v) of "Eliciting Latent Predictions" (arXiv 2303.08112, section 4) before its mean.
Changes are small, so KL is taken from the change of the logits, not as a difference of two large sums.
Shapes: N rows, E d_head, V vocabulary, A ablations.
"""

from dataclasses import dataclass

import torch

from alens.lens.maps import AffineMaps, LensMaps
from alens.machine.blocks import row_blocks
from alens.machine.products import fast_float32
from alens.statistics.divergences import kl_of_change


@dataclass(frozen=True, kw_only=True)
class HeadLens:
    """The lens of one head."""

    maps: LensMaps
    index: int
    """The number of the head's map among `maps`."""

    @property
    def weight_EV(self) -> torch.Tensor | None:
        """The weight in logits = z weight + bias; None for a lens that is not affine."""
        return self.maps.weight_HEV[self.index] if isinstance(self.maps, AffineMaps) else None

    def logits(self, z_NE: torch.Tensor) -> torch.Tensor:
        """(N, V) the logits of the reading."""
        return self.maps.logits(self.index, z_NE)

    def change(self, z_NE: torch.Tensor, moves_NE: torch.Tensor) -> torch.Tensor:
        """(N, V) the logits at `z + moves` minus those at `z`."""
        weight_EV = self.weight_EV
        if weight_EV is not None:
            return moves_NE @ weight_EV
        return self.logits(z_NE + moves_NE) - self.logits(z_NE)


@torch.inference_mode()
@fast_float32()
def lens_influence(
    lens: HeadLens, z_NE: torch.Tensor, donors_NE: torch.Tensor, removals_AEE: torch.Tensor
) -> torch.Tensor:
    """(A, N) float64 on the CPU: KL of the reading of each row to that of its ablated z, nats."""
    kl_AN = torch.empty(len(removals_AEE), len(z_NE), dtype=torch.float64)
    for rows in row_blocks(len(z_NE), z_NE.device):
        z_BE, away_BE = z_NE[rows], donors_NE[rows] - z_NE[rows]
        log_p_BV = lens.logits(z_BE).log_softmax(-1)
        p_BV = log_p_BV.exp()
        for a, removal_EE in enumerate(removals_AEE):
            kl_B = kl_of_change(p_BV, log_p_BV, lens.change(z_BE, away_BE @ removal_EE))
            kl_AN[a, rows] = kl_B.double().cpu()
    return kl_AN
