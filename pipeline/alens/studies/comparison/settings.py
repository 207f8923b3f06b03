"""The settings of a comparison of two sets of prompts."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from alens.errors import RequestError
from alens.fields import check
from alens.heads import HeadNames
from alens.reading.settings import RankedBy

LAST, ALL = "last", "all"


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """How readings of clean and of suspect prompts are compared."""

    layers: tuple[int, ...] | None = None
    """Layers to compare. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to compare: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    by: RankedBy = "lens"
    """The reading that heads are ranked, tested and judged by: their lens, what they write,
    or what their effect lenses (--effect) say that they add, the last two added to the model's mean output."""
    paired: bool = False
    """Suspect prompt i was made from clean prompt i: pairs are shuffled, drawn and held out together."""
    position: str | int = LAST
    """Read the last token of a prompt (`last`), average over all positions that lenses are fitted on (`all`: from the
    --min-position of their fit), or read one position; -2 counts from the end."""
    top: Annotated[int, Ge(1)] = 8
    """Tokens to list of those that appear, and of those that vanish; the table shows 4 of each."""
    resamples: Annotated[int, Ge(1), Le(100_000)] = 1000
    """How many permutations of the labels, flips of signs, and bootstrap resamples of the prompts to draw."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the resamples, the folds and the refits."""

    def __post_init__(self) -> None:
        check(self)
        check_position(self.position)


def check_position(position: str | int) -> None:
    """Raises `RequestError` unless it is `last`, `all` or a number."""
    if position in (LAST, ALL):
        return
    try:
        int(position)
    except ValueError:
        raise RequestError(f"position {position!r} is neither `last`, `all` nor a number such as 3") from None
