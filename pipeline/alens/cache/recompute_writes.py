"""What heads write by a cache, compared with what the model's blocks add to the residual stream.

In: stored z of some rows, the stored W_O and scales, and what attention gave in the model. Out: differences of `z W_O + b_O`,
and of the scales of norms behind attention. The bias is not stored, so it is the model's.

Tolerance. A sum of z W_O is off by what z is off, times |W_O|, and by the noise of the row. A norm behind it is off by the
noise of what it takes in its scale, and by the same share in what it gives.
Shapes: N rows, H heads, E d_head, D d_model.
"""

import numpy as np
import numpy.typing as npt
import torch

from alens.cache import tolerance
from alens.cache.array_differences import LargestDifferences
from alens.model.behind_attention import BehindAttention
from alens.model.bridge import output_biases
from alens.model.models import LoadedModel
from alens.store.arrays import WRITE_SCALE, site_name
from alens.store.cache_reader import Cache
from alens.store.model_record import FOLDS


class StoredWrites:
    """The stored W_O of a cache, beside its model."""

    def __init__(self, cache: Cache, model: LoadedModel) -> None:
        self._cache, self._plan, self._device = cache, cache.plan, model.device
        self._W_O_LHED = torch.from_numpy(cache.weights("W_O")).to(model.device)
        if cache.plan.model.head_write in FOLDS:
            self._behind, b_O_LD = model.behind, model.b_O_LD
        else:  # nothing was folded into W_O: what the output projection gives is compared
            self._behind = (BehindAttention(),) * len(model.behind)
            b_O_LD = output_biases(model.bridge, model.W_O_LHED)
        self._b_O_LD = b_O_LD.float()

    def compare(
        self,
        layer: int,
        stored_NHE: torch.Tensor,
        allowed_NHE: torch.Tensor,
        output_ND: torch.Tensor,
        row_N: npt.NDArray[np.int64],
        differences: LargestDifferences,
    ) -> None:
        """Add the differences of a layer. `stored_NHE` is off by `allowed_NHE` at most; `output_ND` is what attention gave."""
        W_O_FD, behind = self._W_O_LHED[layer].flatten(0, 1), self._behind[layer]
        ours_ND = stored_NHE.flatten(1) @ W_O_FD + self._b_O_LD[layer]
        allowed_ND, noise = allowed_NHE.flatten(1) @ W_O_FD.abs(), tolerance.noise(self._plan)
        if (scale_N := behind.scale(output_ND)) is not None:
            stored_NL = torch.from_numpy(self._cache.read(WRITE_SCALE, row_N)).to(self._device)
            stored_N = stored_NL[:, self._plan.layers.index(layer)]
            allowed_N = noise * tolerance.largest(output_ND)[:, 0]
            differences.add(WRITE_SCALE, (stored_N - scale_N).abs(), allowed_N, row_N)
            ours_ND, allowed_ND = ours_ND / stored_N[:, None], allowed_ND / stored_N[:, None]
            noise *= 2
        added_ND = behind.added(output_ND)
        allowed_ND = allowed_ND + noise * tolerance.largest(added_ND)
        name = f"{site_name(layer)} W_O + b_O"
        differences.add(name, (ours_ND + behind.offset_D - added_ND).abs(), allowed_ND, row_N)
