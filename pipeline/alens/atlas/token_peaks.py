"""The most that a head raises and lowers each token, over rows: what "which heads write this token?" is answered from.

In: written logits of one head, a block of rows at a time. Out: `Peaks`: for each token the largest and the smallest logit,
and the rows that have them. Finding the row of each largest number takes twenty times as long as finding the number, so
a block only says in which block it is, and the rows are found at the end, for each token in its one block.
Shapes: B rows of a block, N rows, E d_head, C tokens, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The largest values of each token, and their rows."""

    values_V: torch.Tensor
    rows_V: torch.Tensor
    """int64. The first row of the block, until `settled`."""

    @classmethod
    def of_no_rows(cls, vocabulary: int) -> "Peaks":
        """Before the first row."""
        return cls(
            values_V=torch.full((vocabulary,), -math.inf), rows_V=torch.zeros(vocabulary, dtype=torch.int64)
        )

    def add(self, values_BV: torch.Tensor, start: int) -> None:
        """The rows from `start` on."""
        most_V = values_BV.amax(0)
        self.rows_V.masked_fill_(most_V > self.values_V, start)
        torch.maximum(self.values_V, most_V, out=self.values_V)

    def settled(self, inputs_NE: torch.Tensor, map_EV: torch.Tensor, size: int) -> "Peaks":
        """The same with the rows themselves; the values are `inputs map`, and blocks had `size` rows."""
        order_V = self.rows_V.argsort(stable=True)
        starts, counts = self.rows_V[order_V].unique_consecutive(return_counts=True)
        rows_V = self.rows_V.clone()
        for start, tokens_C in zip(starts.tolist(), order_V.split(counts.tolist()), strict=True):
            values_BC = inputs_NE[start : start + size] @ map_EV[:, tokens_C]
            rows_V[tokens_C] = start + values_BC.argmax(0)
        return Peaks(values_V=self.values_V, rows_V=rows_V)
