"""What a transfer of lenses to other heads, or to a copy of their model, can be asked for."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge

from alens.errors import RequestError

Match = Literal["none", "mean", "scale"]


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Which lenses are put on which heads, and how they are judged."""

    layers: tuple[int, ...] | None = None
    """Layers to take. None: all that were fitted."""
    heads: tuple[int, ...] | None = None
    """Heads to take, in each layer. None: all that were fitted."""
    rows: Annotated[int, Ge(1)] = 4096
    """Held-out rows at most. Time grows with rows, and with the square of the number of heads."""
    match: Match = "scale"
    """What is brought to the values that a lens was fitted to: nothing, the mean, mean and overall scale."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the intervals."""

    def __post_init__(self) -> None:
        if self.match not in get_args(Match):
            raise RequestError(f"match is {self.match!r}: take {' or '.join(get_args(Match))}")
        if self.rows < 1:
            raise RequestError(f"rows is {self.rows}: it must be 1 or more")
        if self.seed < 0:
            raise RequestError(f"seed is {self.seed}: it must be 0 or more")
