"""What judging lenses can be asked for."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alens.fields import check
from alens.heads import HeadNames


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which lenses are judged, and on how many rows."""

    layers: tuple[int, ...] | None = None
    """Layers to judge. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to judge: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    rows: Annotated[int, Ge(1)] | None = None
    """At most this many held-out rows. None: all."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the bootstrap's resamples."""
    resamples: Annotated[int, Ge(1)] | None = None
    """Resamples of the bootstrap. None: 2,000."""

    def __post_init__(self) -> None:
        check(self)
