"""What norms divide by at some rows: the last norm, and the norm behind the attention of each layer.

In: the scales of a forward pass, or of a cache. Out: `RowScales`; what a part of the stream, or what a head writes, is
divided by. Where no norm stands behind the attention of a layer, a write has the scale of the last norm alone.
Shapes: N rows, L cached layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from alens.store.arrays import FINAL_SCALE, WRITE_SCALE

if TYPE_CHECKING:  # the module imports Zarr, and `alens read` opens no cache
    from alens.store.cache_reader import Cache, Rows


@dataclass(frozen=True)
class RowScales:
    """(N,) float32 each."""

    final_N: torch.Tensor
    """What the last norm divides by."""
    behind: Mapping[int, torch.Tensor] = field(default_factory=dict)
    """By layer, what the norm behind its attention divides by, where there is one."""

    def write(self, layer: int) -> torch.Tensor:
        """(N,) what z `W_O` of a head of the layer is divided by on its way into the final normed residual."""
        return self.final_N * self.behind[layer] if layer in self.behind else self.final_N

    def to(self, device: torch.device) -> "RowScales":
        behind = {layer: one.to(device) for layer, one in self.behind.items()}
        return RowScales(self.final_N.to(device), behind)

    def __getitem__(self, rows: slice | Sequence[int]) -> "RowScales":
        """Those of some of the rows."""
        return RowScales(self.final_N[rows], {layer: one[rows] for layer, one in self.behind.items()})

    @classmethod
    def cat(cls, parts: Sequence["RowScales"]) -> "RowScales":
        """Those of all rows of the parts, in their order."""
        behind = {layer: torch.cat([part.behind[layer] for part in parts]) for layer in parts[0].behind}
        return cls(torch.cat([part.final_N for part in parts]), behind)

    @classmethod
    def of_cache(cls, cache: "Cache", rows: "Rows") -> "RowScales":
        """Those that a cache keeps; it must have a last norm that alens knows."""
        return cls.of_columns(cache, {name: cache.read(name, rows) for name in scale_columns(cache)})

    @classmethod
    def of_columns(cls, cache: "Cache", columns: Mapping[str, npt.NDArray[np.float32]]) -> "RowScales":
        """Those in the arrays that `scale_columns` names, of some rows of the cache."""
        final_N, behind_NL = torch.from_numpy(columns[FINAL_SCALE]), columns.get(WRITE_SCALE)
        if behind_NL is None:
            return cls(final_N)
        places = enumerate(cache.plan.layers)
        return cls(final_N, {layer: torch.from_numpy(behind_NL[:, place]) for place, layer in places})


def scale_columns(cache: "Cache") -> tuple[str, ...]:
    """The arrays of a cache that hold what norms divide by."""
    return (FINAL_SCALE, WRITE_SCALE) if cache.plan.model.keeps_write_scale else (FINAL_SCALE,)
