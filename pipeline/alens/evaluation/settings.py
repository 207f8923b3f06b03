"""What judging lenses can be asked for."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from alens.fields import check
from alens.heads import HeadNames

BaselineName = Literal["unembedding", "written", "scaled-write", "tuned-composition", "regression", "random"]

HeadSort = Literal["gain", "kl", "effect", "layer"]
"""Which heads come first in tables: those whose lens gains most over the mean output, whose KL is lowest, whose measured
effect is largest; or by layer and head."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which lenses are judged, and on how many rows."""

    layers: tuple[int, ...] | None = None
    """Layers to judge. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to judge: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    rows: Annotated[int, Ge(1)] | None = None
    """At most this many held-out rows. None: all."""
    baselines: tuple[BaselineName, ...] | None = None
    """Baselines to judge beside, of unembedding, written, scaled-write, tuned-composition, regression and random; the mean
    output always is. None: those of the first four that can be had, written where the cache has effects."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the bootstrap's resamples, and of random directions."""
    resamples: Annotated[int, Ge(1)] | None = None
    """Resamples of the bootstrap. None: 2,000."""

    def __post_init__(self) -> None:
        check(self)
