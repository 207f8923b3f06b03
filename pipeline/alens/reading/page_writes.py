"""What heads write, as the page of `alens read --html` has it: lists of tokens, and logits of the tokens that are kept.

In: the readings of one layer after another. Out: a `WrittenGrid` for each position. Logits are whole numbers of
thousandths.
Shapes: H heads, T tokens, K entries of a list, C tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence

import torch

from alens.machine.top_tokens import top_tokens
from alens.reading.head_reader import HeadReader, LayerReading
from alens.reading.page_data import Lists, WrittenGrid
from alens.reading.page_tokens import thousandths
from alens.reading.settings import SUPPRESSED_SHOWN
from alens.reading.terms import Term
from alens.reading.written_lists import is_suppressed

Listed = Callable[[torch.Tensor, torch.Tensor], Lists]
"""Gives the lists of the page from ids and values, (H, K) each, the largest first; -inf is left out."""


class PageWrites:
    """The grids of the positions of one prompt, while they are filled.

    Attribute: `grids`, one for each position.
    """

    def __init__(self, reader: HeadReader, num_places: int, top: int) -> None:
        self._reader, self._top = reader, top
        self.grids = [WrittenGrid() for _ in range(num_places)]

    def add(self, layer: LayerReading, places: Sequence[int], listed: Listed) -> None:
        """Add the lists of a layer at some positions."""
        if layer.written_HTV is None:
            return
        for t, at in enumerate(places):
            written_HV, grid = layer.written_HTV[:, t], self.grids[at]
            grid.raised.extend(_largest(written_HV, self._top, listed))
            grid.lowered.extend(_negated(_largest(-written_HV, self._top, listed)))
            grid.suppressed.extend(self._suppressed(written_HV, layer.lens_HTV[:, t], listed))

    def _suppressed(self, written_HV: torch.Tensor, lens_HV: torch.Tensor, listed: Listed) -> Lists:
        if self._reader.log_mean_V is None:
            return [[] for _ in written_HV]
        marked_HV = is_suppressed(written_HV, lens_HV, self._reader.log_mean_V)
        return _negated(_largest((-written_HV).masked_fill(~marked_HV, -math.inf), SUPPRESSED_SHOWN, listed))

    def keep(
        self,
        layer: int,
        heads: Sequence[int],
        z_HTE: torch.Tensor,
        scale_T: torch.Tensor,
        terms: Sequence[Term],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """Add the logits of terms, then of the `tokens` of each position, for the heads of the next layer."""
        together = list(
            dict.fromkeys([*(term.token for term in terms), *(t for each in tokens for t in each)])
        )
        column = {token: c for c, token in enumerate(together)}
        logits_HTC = self._reader.writes.logits(layer, heads, z_HTE, scale_T, together)
        for at, of_place in enumerate(tokens):
            columns = [column[token] for token in (*(term.token for term in terms), *of_place)]
            self.grids[at].keep(thousandths(logits_HTC[:, at, columns].T))


def _largest(values_HV: torch.Tensor, top: int, listed: Listed) -> Lists:
    values_HK, ids_HK = top_tokens(values_HV, top)
    return listed(ids_HK, values_HK)


def _negated(lists: Lists) -> Lists:
    """The same tokens with their numbers turned round."""
    return [[value if at % 2 == 0 else -value for at, value in enumerate(entries)] for entries in lists]
