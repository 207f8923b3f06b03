"""The most that a head raises and lowers each token, over rows: what "which heads write this token?" is answered from.

In: written logits, a block of rows at a time. Out: `Peaks` of one head.
Shapes: B rows of a block, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The largest and the smallest logit of each token, and where the blocks of rows begin that have it."""

    raised_V: torch.Tensor
    raised_from_V: torch.Tensor
    lowered_V: torch.Tensor
    """Turned round: what is lowered most is largest."""
    lowered_from_V: torch.Tensor

    @classmethod
    def of_no_rows(cls, vocabulary: int) -> "Peaks":
        """Before the first row."""
        return cls(
            raised_V=torch.full((vocabulary,), -math.inf),
            raised_from_V=torch.zeros(vocabulary, dtype=torch.int64),
            lowered_V=torch.full((vocabulary,), -math.inf),
            lowered_from_V=torch.zeros(vocabulary, dtype=torch.int64),
        )

    def add_raised(self, written_BV: torch.Tensor, start: int) -> None:
        """The logits of the rows from `start` on."""
        _keep_larger(self.raised_V, self.raised_from_V, written_BV, start)

    def add_lowered(self, turned_BV: torch.Tensor, start: int) -> None:
        """The same logits turned round."""
        _keep_larger(self.lowered_V, self.lowered_from_V, turned_BV, start)


def _keep_larger(best_V: torch.Tensor, from_V: torch.Tensor, values_BV: torch.Tensor, start: int) -> None:
    most_V = values_BV.amax(0)
    from_V.masked_fill_(most_V > best_V, start)
    torch.maximum(best_V, most_V, out=best_V)
