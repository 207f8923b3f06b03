"""How often each token stands in the lists of a head, over rows, and how high: the tokens of the head in one list.

In: the best tokens of each row, with their values. Out: `TokenShare`s. A token is worth the sum of the squares of its values
over the rows that list it. At most rows a head does next to nothing, and lists chance tokens: by their number, or by the
sum of values, these would fill the list.
Shapes: B rows of a block, K entries of a list, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch

ROWS_TO_COUNT = 1024
"""A token needs one row more than there are such numbers of rows: its share of rows is not one chance row."""


@dataclass(frozen=True, kw_only=True)
class TokenShare:
    """A token of a head, over the rows of an atlas."""

    id: int
    share: float
    """Share of the rows that have it in their list."""
    mean: float
    """Its mean value there: logits, or log lift in nats."""


class ListedTokens:
    """Adds up lists. Values are those of the list, largest first; -inf is left out."""

    def __init__(self, vocabulary: int) -> None:
        self._count_V = torch.zeros(vocabulary)
        self._total_V = torch.zeros(vocabulary)
        self._squares_V = torch.zeros(vocabulary)
        self._rows = 0

    def add(self, ids_BK: torch.Tensor, values_BK: torch.Tensor) -> None:
        """Add the lists of some rows."""
        listed = values_BK > -math.inf
        ids, values = ids_BK[listed], values_BK[listed]
        self._count_V.index_add_(0, ids, torch.ones_like(values))
        self._total_V.index_add_(0, ids, values)
        self._squares_V.index_add_(0, ids, values.square())
        self._rows += len(ids_BK)

    def best(self, top: int, sign: float = 1.0) -> list[TokenShare]:
        """The tokens with the largest sums of squares, at most `top`; `sign` is that of their means.

        What only a row or two in a thousand rows list is left out.
        """
        worth_V = self._squares_V.masked_fill(self._count_V <= self._rows // ROWS_TO_COUNT, 0.0)
        ids = worth_V.topk(min(top, len(worth_V))).indices.tolist()
        return [
            TokenShare(
                id=token,
                share=float(self._count_V[token]) / self._rows,
                mean=sign * float(self._total_V[token] / self._count_V[token]),
            )
            for token in ids
            if worth_V[token] > 0
        ]
