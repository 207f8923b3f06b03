"""The model's last norm: what stands between the residual stream and the unembedding.

In: kind, epsilon, gain and offset, as the model has them (`model/last_norm.py` measures them) or a cache keeps them.
Out: the norm of whole residual streams, and what a part of the stream becomes where the whole one is normed: a norm
divides by the scale of all that was written, so a part has no norm of its own. The unembedding of a head is
`part(z W_O, scale) W_U + b_U`, here and nowhere else.
Shapes: N rows (any leading axes), D d_model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alens.store.model_record import LAYER_NORM, NO_NORM, RMS_NORM, NormRecord

if TYPE_CHECKING:  # it imports Zarr, and `alens read` opens no cache
    from alens.store.cache_reader import Cache


def normed(x_ND: torch.Tensor, norm: NormRecord) -> torch.Tensor:
    """The norm without gain and offset, over the last axis."""
    if norm.kind == LAYER_NORM:
        return torch.nn.functional.layer_norm(x_ND, x_ND.shape[-1:], eps=norm.epsilon)
    if norm.kind == RMS_NORM:
        return x_ND * torch.rsqrt(x_ND.pow(2).mean(-1, keepdim=True) + norm.epsilon)
    return x_ND


@dataclass(frozen=True, kw_only=True)
class FinalNorm:
    """A last norm, float32."""

    record: NormRecord
    gain_D: torch.Tensor
    """What the normed residual is multiplied with: of Gemma 1 + weight."""
    offset_D: torch.Tensor

    @classmethod
    def of_cache(cls, cache: "Cache") -> "FinalNorm | None":
        """As `cache` keeps it; None for one of before it was kept, or of a model whose last norm alens does not know."""
        record = cache.plan.model.final_norm
        if record is None or not record.is_known:
            return None
        gain_D, offset_D = (torch.from_numpy(cache.weights(f"norm_{name}")) for name in ("gain", "offset"))
        return cls(record=record, gain_D=gain_D, offset_D=offset_D)

    @classmethod
    def bare(cls, record: NormRecord, d_model: int) -> "FinalNorm":
        """Gain 1 and offset 0."""
        return cls(record=record, gain_D=torch.ones(d_model), offset_D=torch.zeros(d_model))

    def to(self, device: torch.device) -> "FinalNorm":
        return FinalNorm(record=self.record, gain_D=self.gain_D.to(device), offset_D=self.offset_D.to(device))

    def __call__(self, stream_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) float32: the residual after the norm."""
        return normed(stream_ND.float(), self.record) * self.gain_D + self.offset_D

    def scale(self, stream_ND: torch.Tensor) -> torch.Tensor:
        """(N,) float32: what the norm divides each row by."""
        if self.record.kind == NO_NORM:
            return torch.ones(stream_ND.shape[:-1], device=stream_ND.device)
        centred_ND = self._centred(stream_ND.float())
        return (centred_ND.pow(2).mean(-1) + self.record.epsilon).sqrt()

    def linear(self, part_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) what parts of the stream become where the scale is 1, without the offset."""
        return self._centred(part_ND.float()) * self.gain_D

    def part(self, part_ND: torch.Tensor, scale_N: torch.Tensor) -> torch.Tensor:
        """(N, D) what parts of the stream become in rows of these scales, the whole offset added."""
        return self.linear(part_ND) / scale_N[..., None] + self.offset_D

    def pulled_back(self, direction_D: torch.Tensor) -> torch.Tensor:
        """(D,) the direction in the stream along which `part` moves most towards `direction_D`, at a fixed scale."""
        return self._centred(direction_D.float() * self.gain_D)

    def _centred(self, x_ND: torch.Tensor) -> torch.Tensor:
        return x_ND - x_ND.mean(-1, keepdim=True) if self.record.kind == LAYER_NORM else x_ND
