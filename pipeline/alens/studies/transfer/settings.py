"""The settings of a transfer of lenses to other heads, or to a copy of their model."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from alens.fields import check
from alens.heads import HeadNames

ReadBy = Literal["output", "value"]
"""What is taken as the same in a copy: what the head writes into the residual stream, or its z."""

Match = Literal["none", "mean", "scale"]


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Which lenses are put on which heads, and how they are judged."""

    layers: tuple[int, ...] | None = None
    """Layers to take. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to take: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    rows: Annotated[int, Ge(1)] = 4096
    """At most this many held-out rows. Time grows with rows, and with the square of the number of heads."""
    match: Match = "scale"
    """What to match to the values that a lens was fitted on: nothing, the mean, or the mean and the overall scale."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the intervals."""

    def __post_init__(self) -> None:
        check(self)
