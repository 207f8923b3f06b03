"""Each reading of the panel: what it reads of a row, and the logits that it gives.

In: maps and weights on the device, and the values of some rows. Out: `Readings`, for a layer and a head.

    HeadMaps       a head's lens                      z, through the lens
    Unembedding    a head's own output, unembedded    z W_O behind the last norm, W_U and b_U
    LogitLens      the stream after a layer           norm(h) W_U + b_U, capped as the model caps its logits
    StreamMaps     the Tuned Lens of a layer          norm(h A + c) W_U + b_U
    TunedHeads     a head's output through it         part(z W_O A + c) W_U + b_U
    Constant       the mean output                    reads nothing
    ModelOutput    the model itself, not a baseline   what cannot be beaten; with the exact teacher alone

Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch

from alens.evaluation.additions import Addition
from alens.evaluation.readings import Readings, constant_reading, lens_reading
from alens.lens.maps import AffineMaps, LensMaps, TranslatedMaps
from alens.machine.blocks import row_blocks
from alens.machine.products import unembed
from alens.rows.final_norm import FinalNorm
from alens.rows.held_out_rows import HeldOutPart
from alens.rows.row_scales import RowScales
from alens.rows.teacher import ExactTeacher
from alens.store.arrays import site_name
from alens.store.schema import RESIDUAL_STREAM

MEAN_ROWS = 512
"""Rows that the mean output of a lens is averaged over, where what it adds is counted from there."""


class PartValues:
    """The values of some rows that readings need, on the device; each is made when it is first needed."""

    def __init__(self, part: HeldOutPart) -> None:
        self.part = part
        self._site: dict[int, torch.Tensor] = {}
        self._stream: dict[int, torch.Tensor] = {}

    def site(self, layer: int) -> torch.Tensor:
        """(N, H, E) float16 values of the lenses' site."""
        if layer not in self._site:
            self._site[layer] = self.part.values(layer)
        return self._site[layer]

    def stream(self, layer: int) -> torch.Tensor:
        """(N, D) float16, the residual stream after a layer."""
        if layer not in self._stream:
            self._stream[layer] = self._column(site_name(layer, RESIDUAL_STREAM))
        return self._stream[layer]

    @cached_property
    def scales(self) -> RowScales:
        """What norms divide by, on the device."""
        by_name = self.part.columns.by_name
        return RowScales.of_columns(self.part.reader.cache, by_name).to(self.part.reader.device)

    def write_scale(self, layer: int) -> torch.Tensor:
        """(N, 1) float32: what the write of a head of the layer is divided by."""
        return self.scales.write(layer)[:, None]

    def _column(self, name: str) -> torch.Tensor:
        values = np.ascontiguousarray(self.part.columns.by_name[name])
        return torch.from_numpy(values).to(self.part.reader.device)


class Baseline(Protocol):
    """A kind of reading."""

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        """The arrays that must be read beside the values of the lenses' site."""

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        """The reading of some rows. What is the same for all heads, or for all layers, ignores the number."""


@runtime_checkable
class SaysAddition(Protocol):
    """A kind of reading that says what a head adds to the logits."""

    def addition(self, values: PartValues, layer: int, head: int) -> Addition | None:
        """What the head adds at some rows; None where the reading is not affine."""


class ReadsSite:
    """Needs nothing but the values of the lenses' site."""

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        return ()


@dataclass(frozen=True)
class HeadMaps(ReadsSite):
    """Maps of each head, by layer, on its values."""

    maps: Mapping[int, LensMaps]

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        return lens_reading(self.maps[layer], head, values.site(layer)[:, head])

    def addition(self, values: PartValues, layer: int, head: int) -> Addition | None:
        """Log-probabilities of the lens, less the log of its mean output."""
        maps, z_NE = self.maps[layer], values.site(layer)[:, head].float()
        if not isinstance(maps, AffineMaps):
            return None
        weight_EV, bias_V = maps.weight_HEV[head], maps.bias_HV[head]
        some_NE = z_NE[:: max(1, -(-len(z_NE) // MEAN_ROWS))]
        total_V = torch.zeros_like(bias_V)
        for rows in row_blocks(len(some_NE), z_NE.device):
            total_V += torch.addmm(bias_V, some_NE[rows], weight_EV).softmax(-1).sum(0)
        log_mean_V = (total_V / len(some_NE)).clamp_min(torch.finfo(torch.float32).tiny).log()
        return Addition(features_NF=z_NE, weight_FV=weight_EV, constant_V=bias_V - log_mean_V)


@dataclass(frozen=True)
class Unembedding:
    """What the model's unembedding says, behind its last norm, of what each head writes."""

    maps: Mapping[int, AffineMaps]
    """By layer, of values that are divided by the norm's scale."""
    scales: tuple[str, ...]
    """The arrays that say what norms divide a row by; none where rows do not say it."""

    @classmethod
    def of_heads(
        cls,
        W_O: Mapping[int, torch.Tensor],
        norm: FinalNorm,
        W_U_DV: torch.Tensor,
        b_U_V: torch.Tensor,
        *,
        scales: tuple[str, ...],
    ) -> Self:
        """The unembedding of heads, by layer their W_O (H, E, D)."""
        return cls(
            {layer: unembedding(W_O_HED, norm, W_U_DV, b_U_V) for layer, W_O_HED in W_O.items()}, scales
        )

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        return self.scales

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        maps, z_NE = self.maps[layer], values.site(layer)[:, head]
        if not self.scales:
            return lens_reading(maps, head, z_NE)
        scale_N1 = values.write_scale(layer)
        return Readings.one(lambda rows: maps.logits(head, z_NE[rows].float() / scale_N1[rows]))

    def addition(self, values: PartValues, layer: int, head: int) -> Addition:
        """The logits of what the head writes, whatever it writes on average."""
        z_NE = values.site(layer)[:, head].float()
        features_NE = z_NE / values.write_scale(layer) if self.scales else z_NE
        return Addition(features_NF=features_NE, weight_FV=self.maps[layer].weight_HEV[head])


@dataclass(frozen=True)
class LogitLens:
    """The residual stream after a layer, normed and unembedded."""

    norm: FinalNorm
    W_U_DV: torch.Tensor
    b_U_V: torch.Tensor
    cap: float | None
    """The model's logit cap."""
    of_site: bool = False
    """The stream is what the lenses read."""

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        return () if self.of_site else stream_columns(layers)

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        stream_ND = values.site(layer)[:, 0] if self.of_site else values.stream(layer)
        return Readings.one(
            lambda rows: unembed(self.norm(stream_ND[rows].float()), self.W_U_DV, self.b_U_V, self.cap)
        )


@dataclass(frozen=True)
class StreamMaps:
    """A map of each layer on the residual stream after it: the Tuned Lens."""

    maps: Mapping[int, LensMaps]

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        return stream_columns(layers)

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        return lens_reading(self.maps[layer], 0, values.stream(layer))


@dataclass(frozen=True)
class TunedHeads:
    """What the Tuned Lens of a layer says of what each head writes, at the row's scale of the last norm."""

    tuned: Mapping[int, TranslatedMaps]
    W_O: Mapping[int, torch.Tensor]
    """By layer, (H, E, D)."""
    means: Mapping[int, torch.Tensor]
    """By layer, (H, E) E[z]."""
    scales: tuple[str, ...]

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        return self.scales

    def translated(self, layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(E, D) map of z and (D,) shift, into the space behind the last norm, before the division by its scale."""
        maps = self.tuned[layer]
        norm = FinalNorm(record=maps.norm, gain_D=maps.gain_HD[0], offset_D=maps.offset_HD[0])
        return norm.linear(self.W_O[layer][head] @ maps.translator_HED[0]), norm.linear(maps.shift_HD[0])

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        maps, (map_ED, shift_D) = self.tuned[layer], self.translated(layer, head)
        z_NE, final_N1, write_N1 = (
            values.site(layer)[:, head], values.scales.final_N[:, None], values.write_scale(layer)
        )  # fmt: skip
        both_V = torch.stack([maps.offset_HD[0], shift_D]) @ maps.W_U_DV
        weight_EV = map_ED @ maps.W_U_DV

        def logits(rows: slice) -> torch.Tensor:
            moved_BV = torch.mm(z_NE[rows].float() / write_N1[rows], weight_EV)
            return moved_BV.add_(both_V[1] / final_N1[rows]).add_(maps.b_U_V + both_V[0])

        return Readings.one(logits)

    def addition(self, values: PartValues, layer: int, head: int) -> Addition:
        """The logits of what the head writes around its mean, translated."""
        z_NE = values.site(layer)[:, head].float() - self.means[layer][head]
        moved_ND = z_NE @ self.translated(layer, head)[0] / values.write_scale(layer)
        return Addition(features_NF=moved_ND, weight_FV=self.tuned[layer].W_U_DV)


@dataclass(frozen=True)
class Constant(ReadsSite):
    """One distribution for all rows."""

    log_probs_V: torch.Tensor

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        return constant_reading(self.log_probs_V)


@dataclass(frozen=True)
class ModelOutput(ReadsSite):
    """The model's own distribution, from the exact teacher."""

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        teacher = values.part.teacher
        assert isinstance(teacher, ExactTeacher)  # the cache has one, and judging takes the best there is
        return Readings.one(teacher.logits)


def unembedding(
    W_O_HED: torch.Tensor, norm: FinalNorm, W_U_DV: torch.Tensor, b_U_V: torch.Tensor
) -> AffineMaps:
    """The unembedding of each head as maps on its values, divided by the norm's scale."""
    weight_HEV = torch.matmul(norm.linear(W_O_HED.to(W_U_DV)), W_U_DV)
    return AffineMaps(
        weight_HEV=weight_HEV, bias_HV=(norm.offset_D @ W_U_DV + b_U_V).expand(len(W_O_HED), -1)
    )


def stream_columns(layers: Sequence[int]) -> Sequence[str]:
    """The arrays of the residual stream after these layers."""
    return [site_name(layer, RESIDUAL_STREAM) for layer in layers]
