"""Values of one head in the coordinates of another: how a lens is applied to a head that it was not fitted to.

In: values of a head, its output matrix, and the frame of the heads whose lenses shall read them. Out: the same
values as those lenses expect them.

z has a basis of its own in each head, so a lens on z of one head means nothing on z of another. What heads share is
the residual stream that they write to. The lens of the paper ("Attention Lens", arXiv 2310.16270) reads the head's
output a = z W_O; there the lens of head i is a pinv(W_O_i) W_i + b_i, and on head j it says
z_j W_O_j pinv(W_O_i) W_i + b_i. So z_j W_O_j pinv(W_O_i) is what its saved map takes, whatever the form of the map.
pinv is blind outside the row space of W_O_i: of what head j writes, only the part is read that head i could write too.
`seen` says how much that is. At a site of the residual stream all layers have one basis, and values stay as they are.
Shapes: N rows, H heads of the source, E width of the site's values (d_head for z), D d_model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from alens.studies.transfer.settings import Match

MATCHES = get_args(Match)
"""What is brought from the target's values to the source's: nothing; the mean; mean and overall scale.
Heads write at very different scales, and a lens that is given ten times its values says ten times its logits."""

SMALLEST_VARIANCE = 1e-7
"""Share of the largest variance: directions that vary less are left out of a scale."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The coordinates and the moments of the values of one layer's heads."""

    W_O_HED: torch.Tensor | None
    """Output matrices; None for a site of the residual stream."""
    mean_HE: torch.Tensor
    """Mean of the values."""
    covariance_HEE: torch.Tensor
    """Covariance of the values, float64."""

    def select(self, place: int) -> "Frame":
        """One of the heads."""
        one = slice(place, place + 1)
        return Frame(
            W_O_HED=None if self.W_O_HED is None else self.W_O_HED[one],
            mean_HE=self.mean_HE[one],
            covariance_HEE=self.covariance_HEE[one],
        )

    def without_outputs(self) -> "Frame":
        """The same values, taken as they are: for a head whose basis is the source's already."""
        return replace(self, W_O_HED=None)

    @cached_property
    def pinv_HDE(self) -> torch.Tensor | None:
        """The pseudo-inverse of W_O, from the residual stream back to values. Made in float64: W_O may be
        ill-conditioned."""
        if self.W_O_HED is None:
            return None
        pinv_HDE: torch.Tensor = torch.linalg.pinv(self.W_O_HED.double())
        return pinv_HDE.float()

    def outputs(self, head: int, values_NE: torch.Tensor) -> torch.Tensor:
        """(N, D) float32: what a head writes into the residual stream."""
        return values_NE.float() if self.W_O_HED is None else values_NE.float() @ self.W_O_HED[head]

    def back(self, outputs_ND: torch.Tensor) -> torch.Tensor:
        """(N, H, E): vectors of the residual stream as values of each of these heads."""
        if self.pinv_HDE is None:
            return outputs_ND[:, None]
        num_heads, d_model, width = self.pinv_HDE.shape
        side_by_side_DV = self.pinv_HDE.transpose(0, 1).reshape(d_model, num_heads * width)
        return (outputs_ND @ side_by_side_DV).view(-1, num_heads, width)


@dataclass(frozen=True, kw_only=True)
class Rebased:
    """Brings values of one head to the coordinates of each head of a source layer."""

    source: Frame
    target: Frame
    head: int
    """The head of the target, by its place on the first axis."""
    match: str
    """One of `MATCHES`."""

    @cached_property
    def scale_H(self) -> torch.Tensor:
        """Factors that give the values the source's mean square, in the coordinates in which the source is white."""
        source, target, head = self.source, self.target, self.head
        covariance_EE = target.covariance_HEE[head]
        if target.W_O_HED is None:
            spread_HEE = covariance_EE[None]
        else:
            basis_HEE = source.back(target.W_O_HED[head]).transpose(0, 1).double()
            spread_HEE = basis_HEE.mT @ covariance_EE @ basis_HEE
        inverse_HEE = torch.linalg.pinv(source.covariance_HEE, rtol=SMALLEST_VARIANCE, hermitian=True)
        spread_H = torch.einsum("hef,hfe->h", inverse_HEE, spread_HEE)
        home_H = torch.einsum("hef,hfe->h", inverse_HEE, source.covariance_HEE)
        return (home_H / spread_H.clamp_min(torch.finfo(torch.float64).tiny)).sqrt().float()

    @cached_property
    def _moves(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The factor (H, 1) and the shift (H, E) of the match; None where nothing is matched."""
        if self.match == "none":
            return None
        mean_HE = self.source.back(self.target.outputs(self.head, self.target.mean_HE[self.head][None]))[0]
        scale_H = self.scale_H if self.match == "scale" else mean_HE.new_ones(len(mean_HE))
        return scale_H[:, None], self.source.mean_HE - scale_H[:, None] * mean_HE

    def __call__(self, values_NHE: torch.Tensor) -> torch.Tensor:
        """(N, H, E) float32 from the values of the target's heads."""
        moved_NHE = self.source.back(self.target.outputs(self.head, values_NHE[:, self.head]))
        if self._moves is None:
            return moved_NHE
        scale_H1, shift_HE = self._moves
        return torch.addcmul(shift_HE, moved_NHE, scale_H1)


def seen(source: Frame, target: Frame, head: int) -> torch.Tensor | None:
    """(H,): the share of the variance of a head's output that lies where each head of `source` can write.

    None at a site of the residual stream, where it is all.
    """
    if source.W_O_HED is None or target.W_O_HED is None:
        return None
    values, vectors = torch.linalg.eigh(target.covariance_HEE[head])
    root_EE = vectors * values.clamp_min(0).sqrt()
    spread_ED = root_EE.T @ target.W_O_HED[head].double()
    basis_HDE = torch.linalg.qr(source.W_O_HED.double().transpose(1, 2)).Q
    inside_H = (spread_ED @ basis_HDE).square().sum((1, 2))
    share_H: torch.Tensor = inside_H / spread_ED.square().sum().clamp_min(1e-300)
    return share_H.float()


def shares_seen(
    frames: Mapping[int, Frame], targets: Sequence[tuple[int, int]]
) -> npt.NDArray[np.float64] | None:
    """(S, T) shares of variance that each source head sees of each target (layer, place); None where all is seen."""
    layers = list(dict.fromkeys(layer for layer, _ in targets))
    columns = [[seen(frames[i], frames[j], place) for i in layers] for j, place in targets]
    shares = [
        torch.cat([part for part in column if part is not None])
        for column in columns
        if column[0] is not None
    ]
    return torch.stack(shares, 1).double().cpu().numpy() if shares else None
