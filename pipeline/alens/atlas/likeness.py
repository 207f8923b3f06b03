"""Which heads write alike: the correlation of what two heads write, over rows and the whole vocabulary.

In: the direct write of each head on the same few rows, in the final normed residual. Out: for each head the heads whose
writes are most like its own, and those that write most nearly the opposite. The product of two writes in logits is one in
D numbers, `w G w'` with G the Gram matrix of the centred unembedding, so nothing of the size of the vocabulary is kept.
Shapes: M rows, C heads, D d_model, V vocabulary.
"""

import numpy as np
import torch

from alens.heads import Head

MOST_ROWS = 256
MOST_BYTES = 256 * 2**20
"""The writes of all heads are kept: rows are fewer in larger models."""


class Likeness:
    """Collects writes, then compares them. Attribute: `rows_M`, which of the rows of the atlas are taken."""

    def __init__(self, W_U_DV: torch.Tensor, num_rows: int, num_heads: int) -> None:
        most = MOST_BYTES // (4 * len(W_U_DV) * num_heads)
        count = max(1, min(MOST_ROWS, num_rows, most))
        self.rows_M = torch.from_numpy(np.linspace(0, num_rows - 1, count).round().astype(np.int64))
        centred_DV = W_U_DV - W_U_DV.mean(-1, keepdim=True)
        gram_DD = (centred_DV @ centred_DV.T).double()
        values_D, axes_DD = torch.linalg.eigh(gram_DD)
        self._root_DD = (axes_DD * values_D.clamp_min(0.0).sqrt()).float()
        self._writes: dict[Head, torch.Tensor] = {}

    def add(self, head: Head, final_MD: torch.Tensor) -> None:
        """The write of a head at `rows_M`, in the final normed residual."""
        moved = (final_MD @ self._root_DD).flatten()
        self._writes[head] = moved / moved.norm().clamp_min(torch.finfo(torch.float32).tiny)

    def correlations(self) -> dict[Head, list[tuple[Head, float]]]:
        """For each head, all others with their correlation, -1 to 1, the most alike first."""
        heads = list(self._writes)
        if not heads:
            return {}
        together_CN = torch.stack([self._writes[head] for head in heads])
        alike_CC = together_CN @ together_CN.T
        return {
            head: sorted(
                (
                    (other, value)
                    for other, value in zip(heads, alike_C.tolist(), strict=True)
                    if other != head
                ),
                key=lambda pair: -pair[1],
            )
            for head, alike_C in zip(heads, alike_CC, strict=True)
        }
