"""The settings of the search for heads that raise some terms."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from alens.fields import check
from alens.heads import HeadNames

Position = Literal["last", "all"]
LocatedBy = Literal["lens", "written", "effect", "pursuit"]
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
    heads: HeadNames | None = None
    """Heads to test: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    position: Position = "last"
    """Read the last token of a prompt, or average over all positions that lenses are fitted on (from the --min-position of their fit)."""
    by: LocatedBy = "lens"
    """The reading that heads are ranked and marked by: their lens, what they write,
    or what their effect lenses (--effect) say that they add, the last two added to the model's mean output;
    or by Head Pursuit, the share of what they write that lies along the terms' unembedding vectors."""
    compare: Compared = "unembedding"
    """The reading that is tested beside it."""
    alternative: Alternative = "two-sided"
    """Test whether terms are raised or lowered, or only whether they are raised; without controls always `greater`."""
    correction: Correction = "max-t"
    """Correct for the number of heads: bound the chance of any false one (max-t, holm, bonferroni) or their share (bh, by)."""
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Heads are marked where the corrected p is at most this; intervals have the level 1 - alpha."""
    permutations: Annotated[int, Ge(1), Le(100_000)] = 9999
    """Relabellings to draw, if more are possible, and as many draws of a second kind."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the relabellings that are drawn."""

    def __post_init__(self) -> None:
        check(self)
