"""What the search for heads that raise some terms can be asked for."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from alens.errors import RequestError

Position = Literal["last", "all"]
Compared = Literal["unembedding", "none"]
Alternative = Literal["two-sided", "greater"]
Correction = Literal["max-t", "holm", "bonferroni", "bh", "by", "none"]


@dataclass(frozen=True, kw_only=True)
class LocateSettings:
    """Which heads are tested, and how."""

    paired: bool = False
    """The n-th control belongs to the n-th prompt, such as one template filled in two ways."""
    layers: tuple[int, ...] | None = None
    """Layers to test. None: all that were fitted."""
    heads: tuple[int, ...] | None = None
    """Heads to test, in each layer. None: all that were fitted."""
    position: Position = "last"
    """Read the last token of a prompt, or average over all that lenses are fitted on (from the --min-position of their
    fit)."""
    compare: Compared = "unembedding"
    """Reading to test beside the lens's."""
    alternative: Alternative = "two-sided"
    """Test for raised and lowered, or for raised alone; without controls always `greater`."""
    correction: Correction = "max-t"
    """For the number of heads: the chance of any false head (max-t, holm, bonferroni) or their share (bh, by)."""
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Heads are marked where the corrected p is at most this; intervals have the level 1 - alpha."""
    permutations: Annotated[int, Ge(1), Le(100_000)] = 9999
    """Relabellings drawn for the test, where there are more, and draws of a second kind beside them."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the relabellings that are drawn."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("position", Position),
            ("compare", Compared),
            ("correction", Correction),
            ("alternative", Alternative),
        ):
            if (given := getattr(self, name)) not in get_args(kind):
                raise RequestError(f"{name} {given!r} is unknown: take {' or '.join(get_args(kind))}")
        if not 0.0 < self.alpha < 1.0:
            raise RequestError(f"alpha is {self.alpha}: it must lie between 0 and 1")
        if self.permutations < 1:
            raise RequestError(f"permutations is {self.permutations}: it must be 1 or more")
        if self.seed < 0:
            raise RequestError(f"seed is {self.seed}: it must be 0 or more")
