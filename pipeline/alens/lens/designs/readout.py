"""What an objective reads of a design: features, weight and bias of every loss.

A step that trains some of the losses selects them. Their weights, 13 MB a head at V = 50,257, are copied only for an
objective that asks for them by themselves.
Shapes: N rows, H losses of a layer, U of them that are read, F features, V vocabulary.
"""

import functools
from dataclasses import dataclass

import torch


@functools.lru_cache(maxsize=1024)
def unit_index(units: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(U,) int64 on the device, made once: to send a list of numbers in each step would wait for a GPU."""
    with torch.inference_mode(False):  # it serves training too
        return torch.tensor(units, dtype=torch.int64, device=device)


@dataclass(frozen=True)
class Readout:
    """What an objective reads: logits = features weight + bias, for each loss."""

    features_UNF: torch.Tensor
    weight_UFV: torch.Tensor
    """A frozen weight that all losses share may be an expanded view."""
    bias_UV: torch.Tensor

    @property
    def uncopied(self) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...] | None]:
        """(H, F, V) weight and (H, V) bias of the whole layer, and the places of the U losses in them; None for all."""
        return self.weight_UFV, self.bias_UV, None

    def select(self, units: list[int]) -> "Readout":
        """Only these losses."""
        return SomeLosses(self, tuple(units))

    def logits(self, unit: int, rows: slice) -> torch.Tensor:
        """The logits of some rows for one loss, (rows, V), differentiable."""
        return torch.addmm(self.bias_UV[unit], self.features_UNF[unit, rows], self.weight_UFV[unit])


class SomeLosses(Readout):
    """Some losses of a readout, whose weight and bias are copied when they are first read."""

    whole: Readout
    units: tuple[int, ...]

    def __init__(self, whole: Readout, units: tuple[int, ...]) -> None:
        features_UNF = whole.features_UNF.index_select(0, unit_index(units, whole.features_UNF.device))
        self.__dict__.update(whole=whole, units=units, features_UNF=features_UNF)

    @functools.cached_property
    def weight_UFV(self) -> torch.Tensor:
        weight_HFV = self.whole.weight_UFV
        return weight_HFV.index_select(0, unit_index(self.units, weight_HFV.device))

    @functools.cached_property
    def bias_UV(self) -> torch.Tensor:
        bias_HV = self.whole.bias_UV
        return bias_HV.index_select(0, unit_index(self.units, bias_HV.device))

    @property
    def uncopied(self) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
        return self.whole.weight_UFV, self.whole.bias_UV, self.units
