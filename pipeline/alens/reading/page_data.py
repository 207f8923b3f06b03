"""The numbers of the page of `alens read --html`: plain values that are small as JSON.

In: nothing; `read_page` fills them. Out: `PageData` and its parts. Log-probabilities, entropies and KL are whole numbers of thousandths of a nat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from alens.result import Result, number_of, plain

Grid = list[int]
"""One number for each cell, layer by layer."""
Lists = list[list[int]]
"""One list for each cell: token, thousandths, token, thousandths, ..., best first."""


@dataclass(frozen=True, kw_only=True)
class GridReadings:
    """The readings of all heads at one position, by the lens or by the unembedding."""

    kl: Grid
    """KL(model, reading), thousandths of a nat."""
    entropy: Grid
    lists: dict[str, Lists] = field(default_factory=dict)
    """By ranking."""
    kept: list[Grid] = field(default_factory=list)
    """The log-probability of each token that the position keeps."""

    def keep(self, grids: Sequence[Grid], tokens: Sequence[int]) -> None:
        """Add the grids of some tokens.

        A token of a cell's own list gets the number that stands there, from which rounding may otherwise part it.
        """
        grid_of = dict(zip(tokens, grids, strict=True))
        for lists in self.lists.values():
            for cell, entries in enumerate(lists):
                for token, value in zip(entries[::2], entries[1::2], strict=True):
                    if token in grid_of:
                        grid_of[token][cell] = value
        self.kept.extend(grids)


@dataclass(frozen=True, kw_only=True)
class WrittenGrid:
    """What all heads add to the logits at one position, centred over the vocabulary, in thousandths: what they write, or
    their effects by effect lenses. Cells without this reading have empty lists."""

    raised: Lists = field(default_factory=list)
    """The tokens that each cell raises most, the most raised first."""
    lowered: Lists = field(default_factory=list)
    """The tokens that each cell lowers most, the most lowered first."""
    suppressed: Lists = field(default_factory=list)
    """The tokens that each cell knows and suppresses, the most lowered first."""
    kept: list[list[int | None]] = field(default_factory=list)
    """The logit of each token that the position keeps; None for a cell without this reading."""

    def keep(self, values_CH: Sequence[Sequence[int | None]]) -> None:
        """Add the next layer to the grid of each token."""
        self.kept.extend([] for _ in values_CH[len(self.kept) :])
        for grid, values_H in zip(self.kept, values_CH, strict=True):
            grid.extend(values_H)


@dataclass(frozen=True, kw_only=True)
class PromptPosition:
    """One position of a prompt."""

    position: int
    before: str
    """The prompt up to and including the token there, or the end of that text."""
    entropy: int
    mean_output_kl: int | None
    """KL(model, mean output), thousandths of a nat: the KL of a reading that ignores its input. None where the lenses
    lack the mean output."""
    model: list[int]
    """The model's own list, always by probability."""
    kept: list[int]
    """Tokens whose probability is kept for every head; the chosen terms come first."""
    model_kept: list[int]
    """The model's log-probability of each of these tokens."""
    left_out: int
    """How many tokens of the lists had no room in `kept`."""
    lens: GridReadings
    unembedding: GridReadings | None
    """None where what heads write cannot be unembedded, or it was left out."""
    stream: GridReadings | None
    """What the model would say after each layer (`PageData.stream_layers`), by the logit lens of the residual stream; None
    where TransformerLens does not show it."""
    looks: Lists | None
    """For each cell, thousandths of attention to each token of the prompt up to here; None where it is not known."""
    moves: Lists | None
    """The same of the sizes of what the head moves from each token: thousandths of their sum."""
    written: WrittenGrid | None
    """None where `PageData.no_write` gives a reason."""
    effect: WrittenGrid | None
    """The effects of the heads that have an effect lens; None where none was given."""


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
    """Rows of the grid."""
    heads: list[int]
    """Columns of the grid: all head numbers that some layer has."""
    cells: list[tuple[int, int]]
    """Layer and head of each cell."""
    says_nothing: list[bool]
    """For each cell, whether the fit found its lens to do no better than the mean output."""
    no_write: str | None
    """Why it is left out what heads write; None where it is there."""
    suppressed_means: str
    """The explanation of tokens that a head knows and suppresses."""
    nothing_means: str
    """The explanation of `says_nothing` on the page."""
    tokens: list[list[Any]]
    """For each token its text, and thousandths of the log of its share of the mean output or None; terms come first."""
    num_terms: int
    """How many of the tokens are chosen terms."""
    everywhere: list[int]
    """Tokens that every position keeps: what the model says next at the ends of the prompts, and most often elsewhere."""
    stream_layers: list[int]
    """The layers of `PromptPosition.stream`: all of the model."""
    prompts: list[dict[str, Any]]
    """For each prompt `text`, `turns` (name and first position of each turn of a conversation), `tokens` (indices) and
    `places` (a `PromptPosition` for each position that was read)."""

    def to_json(self) -> dict[str, Any]:
        """The document. The numbers of positions are handed on as they are: there are millions, and all are plain."""
        return {
            **{name: plain(value) for name, value in _fields(self).items() if name != "prompts"},
            "prompts": [
                {**prompt, "places": list(map(_position, prompt["places"]))} for prompt in self.prompts
            ],
        }

    def headline(self) -> str:
        """How many prompts, and how many heads."""
        return ", ".join(
            (
                number_of(len(self.prompts), "prompt"),
                f"{number_of(len(self.cells), 'head')} of {number_of(len(self.layers), 'layer')} of {self.model}",
            )
        )

    def records(self) -> list[dict[str, Any]]:
        """One record for each prompt, position and head, with the names of those of a `Reading`."""
        return [
            self._record(prompt["text"], place, cell)
            for prompt in self.prompts
            for place in prompt["places"]
            for cell in range(len(self.cells))
        ]

    def _record(self, prompt: str, place: PromptPosition, cell: int) -> dict[str, Any]:
        layer, head = self.cells[cell]
        other, written, nothing = place.unembedding, place.written, place.mean_output_kl
        effect = place.effect if place.effect is not None and place.effect.raised[cell] else None
        return {
            "prompt": prompt,
            "position": place.position,
            "layer": layer,
            "head": head,
            "says_nothing": self.says_nothing[cell],
            "lens_kl": place.lens.kl[cell] / 1000,
            "lens_entropy": place.lens.entropy[cell] / 1000,
            "unembedding_kl": None if other is None else other.kl[cell] / 1000,
            "unembedding_entropy": None if other is None else other.entropy[cell] / 1000,
            "mean_output_kl": None if nothing is None else nothing / 1000,
            "lens": self._texts(place.lens.lists[self.rank][cell]),
            "unembedding": None if other is None else self._texts(other.lists[self.rank][cell]),
            "written.raised": None if written is None else self._texts(written.raised[cell]),
            "written.lowered": None if written is None else self._texts(written.lowered[cell]),
            "written.suppressed": None if written is None else self._texts(written.suppressed[cell]),
            "effect.raised": None if effect is None else self._texts(effect.raised[cell]),
            "effect.lowered": None if effect is None else self._texts(effect.lowered[cell]),
        }

    def _texts(self, entries: Sequence[int]) -> list[str]:
        """The tokens of a list."""
        return [self.tokens[token][0] for token in entries[::2]]

    def _repr_html_(self) -> str:
        """The page itself, in a frame."""
        from alens.pictures import framed, reading_page

        return framed.framed(reading_page.to_html(self.to_json()), self.headline())


def _position(place: PromptPosition) -> dict[str, Any]:
    parts = {name: getattr(place, name) for name in ("lens", "unembedding", "stream", "written", "effect")}
    return _fields(place) | {name: None if part is None else _fields(part) for name, part in parts.items()}


def _fields(part: Any) -> dict[str, Any]:
    return {one.name: getattr(part, one.name) for one in fields(part)}
