"""What `inject` finds: curves of strength against the next token and the loss.

Plain records, with what a reader needs to judge them: the unit of strength, the rows it was taken over, the
random directions beside.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alens.reading.terms import Term
from alens.studies.injection.edit_effects import CleanRun, EditEffect


@dataclass(frozen=True, kw_only=True)
class Point:
    """One direction at one strength."""

    strength: float
    norm: float
    """Of what is added."""
    change: EditEffect


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One direction at all strengths."""

    by: str
    """`lens`, `unembedding` or `random 1`, `random 2`, ..."""
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What strength 1 is."""

    norm: float
    """Of what it adds: the root mean square norm of what the head writes."""
    rows: int
    """Over how many rows that was taken."""
    rows_of: str
    """`text` or `prompts`."""


@dataclass(frozen=True, kw_only=True)
class RandomSpread:
    """Over random directions."""

    mean: float
    sd: float
    """Standard deviation; 0 for one direction."""


@dataclass(frozen=True, kw_only=True)
class Injection:
    """What was found."""

    layer: int
    head: int | None
    """None for lenses of the residual stream."""
    says_nothing: bool
    """Whether the fit found the lens to do no better than the mean output: its direction then means nothing."""
    site: str
    scaling: str
    within_head: bool
    position: str
    seed: int
    prompts: tuple[str, ...]
    terms: tuple[Term, ...]
    tokens: dict[str, list[str]]
    """By term: its tokens as text."""
    unit: Unit
    cosine: float | None
    """Between the lens's direction and the unembedding's, where both were asked for."""
    writable: float | None
    """Share of the unembedding's whole direction (of its squared norm) that the head can write; None without
    a head."""
    clean: CleanRun
    curves: tuple[Curve, ...]
    """Of the readings that were asked for."""
    random: tuple[Curve, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def random_at(self, point: int) -> list[EditEffect]:
        """What the random directions do at the strength of that number."""
        return [curve.points[point].change for curve in self.random]


def spread(values: Sequence[float]) -> RandomSpread:
    """Of some draws, at least one."""
    return RandomSpread(
        mean=statistics.fmean(values), sd=statistics.stdev(values) if len(values) > 1 else 0.0
    )
