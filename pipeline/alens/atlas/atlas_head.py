"""What the page of a head shows, before it becomes a page.

In: nothing. Out: the dataclasses that the modules of this room fill and `head_page.py` writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alens.atlas.listed_tokens import TokenShare
from alens.heads import Head

Interval = tuple[float, float]

TokenValues = Sequence[tuple[int, float]]
"""Tokens with a value each, largest first."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """The place of a head in one family (`alens heads`)."""

    family: str
    score: float
    control: float
    rank: int
    """1 for the head that stands furthest above its control."""
    heads: int
    """How many heads were scored."""

    @property
    def above(self) -> float:
        """How far the score stands above its control."""
        return self.score - self.control


@dataclass(frozen=True, kw_only=True)
class JudgedReading:
    """The figures of one reading of a head, on held-out rows (docs/metrics.md)."""

    kl: float
    kl_interval: Interval | None
    top1_agreement: float
    gain: float | None
    """The KL of the reading minus that of the lens; None for the lens."""
    gain_interval: Interval | None
    causes: tuple[float | None, ...]
    """Correlation with the effect, share of its variance that is explained, and agreement of signs."""


@dataclass(frozen=True, kw_only=True)
class JudgedHead:
    """The figures of a head."""

    readings: Mapping[str, JudgedReading]
    """By reading."""
    effect: float | None
    """The root of the mean square of what the model loses in a logit without the head; None where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class ShownRow:
    """A row of the cache on a page."""

    before: str
    token: str
    """The token at the row's position: the head reads up to here."""
    after: str
    next_token: str | None
    """The text's next token; None at the end of a sequence."""
    model_token: str
    """The model's most probable next token."""
    strength: float
    raised: TokenValues
    lowered: TokenValues
    listed: TokenValues
    """By the lens, with log lifts."""


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows of about the same strength."""

    title: str
    rows: Sequence[ShownRow]


@dataclass(frozen=True, kw_only=True)
class AtlasHead:
    """One head of an atlas. What it writes is None where it is not known."""

    layer: int
    head: int
    says_nothing: bool
    judged: JudgedHead
    raised: Sequence[TokenShare] | None
    lowered: Sequence[TokenShare] | None
    listed: Sequence[TokenShare]
    write_strength: float | None
    """The root of the mean square of what it adds to a logit, over rows and the vocabulary."""
    lens_kl: float
    """The mean KL of the lens's reading to the mean output."""
    written_rows: Sequence[RowGroup]
    lens_rows: Sequence[RowGroup]

    @property
    def name(self) -> Head:
        """Layer and head."""
        return self.layer, self.head
