"""The numbers of a page of `alens read --html`, as `read_page` makes them: plain values that are small as JSON.

In: nothing. Out: `PageData` and its parts. Log-probabilities, entropies and KL are whole numbers of thousandths of a nat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alens.result import Result

Grid = list[int]
"""A number a cell, layer by layer."""
Lists = list[list[int]]
"""A list a cell: token, thousandths, token, thousandths, ... best first."""


@dataclass(frozen=True, kw_only=True)
class GridReadings:
    """What lenses, or the unembedding, say of all heads at one position."""

    kl: Grid
    """KL(model, reading), thousandths of a nat."""
    entropy: Grid
    lists: dict[str, Lists] = field(default_factory=dict)
    """By ranking."""
    kept: list[Grid] = field(default_factory=list)
    """Log-probability of each token of the place's `kept`."""

    def keep(self, values_HC: Sequence[Sequence[int]], tokens: Sequence[int], num_terms: int) -> None:
        """The next layer's column of each grid: so many terms, then `tokens`. A token of a cell's own list has the
        number that stands there: rounding may part the two."""
        cell = len(self.kept[0]) if self.kept else 0
        for of_head in values_HC:
            listed = [lists[cell] for lists in self.lists.values()]
            own = {token: value for of in listed for token, value in zip(of[::2], of[1::2], strict=True)}
            values = [*of_head[:num_terms], *map(own.get, tokens, of_head[num_terms:])]
            self.kept.extend([] for _ in values[len(self.kept) :])
            for grid, value in zip(self.kept, values, strict=True):
                grid.append(value)
            cell += 1


@dataclass(frozen=True, kw_only=True)
class PromptPosition:
    """One position of a prompt."""

    position: int
    before: str
    """The prompt up to and with its token, or the end of it."""
    entropy: int
    mean_output_kl: int | None
    """KL(model, mean output), thousandths of a nat: what a reader has that looks at nothing. None where the lenses do
    not say the mean output."""
    model: list[int]
    """The model's own list, always by probability."""
    kept: list[int]
    """Tokens whose probability is there for every head; the chosen terms come first."""
    model_kept: list[int]
    """The model's log-probability of each."""
    left_out: int
    """Tokens of the lists for which there was no room in `kept`."""
    lens: GridReadings
    unembedding: GridReadings | None
    """None where what heads write cannot be unembedded."""


@dataclass(frozen=True, kw_only=True)
class PageData(Result):
    """All numbers of one page."""

    model: str
    site: str
    rank: str
    """The ranking that is shown first."""
    ranks: list[str]
    """All rankings that the page offers."""
    min_probability: float
    vocabulary: int
    """The number of tokens of the model; an entropy is at most its log."""
    layers: list[int]
    heads: list[int]
    says_nothing: list[bool]
    """For each cell, whether the fit found its lens to do no better than the mean output."""
    nothing_means: str
    """The explanation of `says_nothing` on the page."""
    tokens: list[list[Any]]
    """(text, thousandths of the log of its share of the mean output or None) of each token, chosen terms first."""
    num_terms: int
    """How many of them are chosen terms."""
    prompts: list[dict[str, Any]]
    """`text`, `tokens` (indices), and `places`."""

    def headline(self) -> str:
        """How many prompts, and which heads."""
        return f"{len(self.prompts)} prompts, {len(self.layers)} layers of {len(self.heads)} heads of {self.model}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each prompt: its text, and how many tokens it has."""
        return [{"prompt": one["text"], "num_tokens": len(one["tokens"])} for one in self.prompts]
