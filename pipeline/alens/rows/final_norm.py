"""The model's last norm: what stands between the residual stream and the unembedding.

In: kind, epsilon, gain and offset, as the model has them (`model/last_norm.py` measures them) or a cache keeps them.
Out: the norm of whole residual streams, and what a part of the stream becomes when the whole stream is normed. A norm
divides by the scale of the whole stream, so a part has no norm of its own. The unembedding of a head is
`part(z W_O, scale) W_U + b_U`; this module alone says how a part is normed.
Shapes: N rows (any leading axes), D d_model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alens.store.model_record import LAYER_NORM, NO_NORM, RMS_NORM, NormRecord

if TYPE_CHECKING:  # the module imports Zarr, and `alens read` opens no cache
    from alens.store.cache_reader import Cache


def normed(x_ND: torch.Tensor, norm: NormRecord) -> torch.Tensor:
    """The stream after the norm without gain and offset, over the last axis."""
    if norm.kind == LAYER_NORM:
        return torch.nn.functional.layer_norm(x_ND, x_ND.shape[-1:], eps=norm.epsilon)
    if norm.kind == RMS_NORM:
        return x_ND * torch.rsqrt(x_ND.pow(2).mean(-1, keepdim=True) + norm.epsilon)
    return x_ND


@dataclass(frozen=True, kw_only=True)
class FinalNorm:
    """A last norm; gain and offset are float32."""

    record: NormRecord
    gain_D: torch.Tensor
    """(D,) what the normed residual is multiplied with; for Gemma this is 1 + weight."""
    offset_D: torch.Tensor

    @classmethod
    def of_cache(cls, cache: "Cache") -> "FinalNorm | None":
        """The norm that `cache` keeps; None for a cache of an earlier alens, and for a kind of norm that alens does not know."""
        record = cache.plan.model.final_norm
        if record is None or not record.is_known:
            return None
        gain_D, offset_D = (torch.from_numpy(cache.weights(f"norm_{name}")) for name in ("gain", "offset"))
        return cls(record=record, gain_D=gain_D, offset_D=offset_D)

    @classmethod
    def bare(cls, record: NormRecord, d_model: int) -> "FinalNorm":
        """A norm with gain 1 and offset 0."""
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
        """(N, D) what parts of the stream become when the scale is 1, without the offset."""
        return self._centred(part_ND.float()) * self.gain_D

    def part(self, part_ND: torch.Tensor, scale_N: torch.Tensor) -> torch.Tensor:
        """(N, D) what parts of the stream become in rows of these scales; the whole offset is added."""
        return self.linear(part_ND) / scale_N[..., None] + self.offset_D

    def pulled_back(self, direction_D: torch.Tensor) -> torch.Tensor:
        """(D,) the direction in the stream along which `part` moves most towards `direction_D`, at a fixed scale."""
        return self._centred(direction_D.float() * self.gain_D)

    def _centred(self, x_ND: torch.Tensor) -> torch.Tensor:
        return x_ND - x_ND.mean(-1, keepdim=True) if self.record.kind == LAYER_NORM else x_ND
