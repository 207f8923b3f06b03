"""What heads add to the logits, as the page of `alens read --html` has it: lists of tokens, and the logits of kept tokens.

In: what the heads of one layer after another write, or their effects. Out: a `WrittenGrid` for each position. Logits are
whole numbers of thousandths; a head without this reading has empty lists, and None in place of numbers.
Shapes: H heads of a layer that have this reading, T tokens, K entries of a list, C tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from alens.machine.top_tokens import top_tokens
from alens.reading.head_reader import LayerReading
from alens.reading.page_data import Lists, WrittenGrid
from alens.reading.page_tokens import thousandths
from alens.reading.settings import SUPPRESSED_SHOWN
from alens.reading.terms import Term
from alens.reading.written_lists import is_suppressed

Listed = Callable[[torch.Tensor, torch.Tensor], Lists]
"""Gives the lists of the page from ids and values, (H, K) each, the largest first; -inf is left out."""

A = TypeVar("A")


@dataclass(frozen=True, kw_only=True)
class Added:
    """What heads of a layer add to the logits."""

    logits_HTV: torch.Tensor
    """Centred over the vocabulary; (H, T, C) where chosen tokens alone are asked for."""
    having: Sequence[int]
    """The places of these H heads among those of the layer that are read."""
    of_layer: int
    """How many heads of the layer are read."""

    def spread(self, values: Sequence[A], lacking: A) -> list[A]:
        """One value for each head of the layer that is read."""
        whole = [lacking] * self.of_layer
        for place, value in zip(self.having, values, strict=True):
            whole[place] = value
        return whole


def added_by(by_head: Mapping[int, torch.Tensor], heads: Sequence[int]) -> Added | None:
    """What some of the `heads` of a layer add, each (T, V) by its number; None where none does."""
    if not by_head:
        return None
    having = [heads.index(head) for head in by_head]
    return Added(logits_HTV=torch.stack(list(by_head.values())), having=having, of_layer=len(heads))


@dataclass
class PageWrites:
    """The grids of the positions of one prompt for one such reading, while they are filled."""

    log_mean_V: torch.Tensor | None
    """The mean output, by which tokens that are known and suppressed are told; without it none are."""
    top: int
    """Entries of a list."""
    kept_step: int
    """Logits of kept tokens are multiples of so many thousandths."""
    grids: list[WrittenGrid] = field(default_factory=list)
    """One for each position."""

    def add(self, added: Added | None, layer: LayerReading, places: Sequence[int], listed: Listed) -> None:
        """Add the lists of a layer at some positions."""
        for t, at in enumerate(places):
            grid = self.grids[at]
            if added is None:
                for lists in (grid.raised, grid.lowered, grid.suppressed):
                    lists.extend([] for _ in layer.heads)
                continue
            logits_HV = added.logits_HTV[:, t]
            lens_HV = layer.lens_HTV[list(added.having), t]
            grid.raised.extend(added.spread(_largest(logits_HV, self.top, listed), []))
            grid.lowered.extend(added.spread(_negated(_largest(-logits_HV, self.top, listed)), []))
            grid.suppressed.extend(added.spread(self._suppressed(logits_HV, lens_HV, listed), []))

    def _suppressed(self, logits_HV: torch.Tensor, lens_HV: torch.Tensor, listed: Listed) -> Lists:
        if self.log_mean_V is None:
            return [[] for _ in logits_HV]
        marked_HV = is_suppressed(logits_HV, lens_HV, self.log_mean_V)
        return _negated(_largest((-logits_HV).masked_fill(~marked_HV, -math.inf), SUPPRESSED_SHOWN, listed))

    def keep(self, added: Added | None, of_layer: int, columns: Sequence[Sequence[int]]) -> None:
        """Add the logits of some columns of (H, T, C) at each position, for the heads of the next layer."""
        for at, chosen in enumerate(columns):
            if added is None:
                self.grids[at].keep([[None] * of_layer for _ in chosen])
            else:
                numbers_CH = thousandths(added.logits_HTV[:, at, chosen].T, self.kept_step)
                self.grids[at].keep([added.spread(numbers_H, None) for numbers_H in numbers_CH])


def single_tokens(
    terms: Sequence[Term], tokens: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[int]]]:
    """All tokens of terms and positions, each once; and for each position the columns of its terms and tokens there."""
    asked = [term.token for term in terms]
    together = list(dict.fromkeys([*asked, *(token for each in tokens for token in each)]))
    column = {token: c for c, token in enumerate(together)}
    return together, [[column[token] for token in (*asked, *each)] for each in tokens]


def _largest(values_HV: torch.Tensor, top: int, listed: Listed) -> Lists:
    values_HK, ids_HK = top_tokens(values_HV, top)
    return listed(ids_HK, values_HK)


def _negated(lists: Lists) -> Lists:
    """The same tokens with their numbers turned round."""
    return [[value if at % 2 == 0 else -value for at, value in enumerate(entries)] for entries in lists]
