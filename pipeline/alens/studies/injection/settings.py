"""The settings of an injection and of an ablation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from alens.errors import RequestError
from alens.fields import check
from alens.heads import Head, HeadNames, pairs_of

By = Literal["lens", "written", "effect", "unembedding", "both", "all"]
SEVERAL = {"both": ("lens", "unembedding"), "all": ("lens", "written", "unembedding")}
"""Choices that name several readings."""
Scaling = Literal["gradient", "covariance"]
Position = Literal["all", "last"]
Ablated = Literal["zero", "mean"]


@dataclass(frozen=True, kw_only=True)
class InjectSettings:
    """What is added, and where."""

    layer: int
    """The layer."""
    head: int | None = None
    """The head. None: no head, for lenses of the residual stream."""
    by: By = "both"
    """Whose direction to add: that of the head's lens, of what the head writes (what it can write that raises the tokens
    most by itself), of its effect lens (what it can write that raises them most, later layers included), of the
    unembedding, `both` lens and unembedding, or `all`: these two and what is written, and the effect lens's where there
    is one."""
    scaling: Scaling = "gradient"
    """The lens's direction: the steepest for its norm, or scaled by how the head's output varies over the text."""
    within_head: bool = False
    """Project the unembedding's direction onto what the head can write; the lens's direction always lies there."""
    strength: tuple[float, ...] = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
    """Norms to add, in units of the root mean square norm of the head's output; below 0: away from the tokens."""
    position: Position = "all"
    """Positions of the prompt where the direction is added; in the text it is added at all positions."""
    random: Annotated[int, Ge(0), Le(1000)] = 3
    """Random directions of the same norm, to compare with."""
    top: Annotated[int, Ge(1)] = 5
    """Next tokens to show."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the random directions and the intervals."""

    def __post_init__(self) -> None:
        check(self)
        if not self.strength:
            raise RequestError("strength is empty: give such as -2,0,2")

    def readings(self, *, has_effect: bool) -> tuple[str, ...]:
        """Whose directions are added; `all` takes in that of an effect lens where there is one."""
        readings = SEVERAL.get(self.by, (self.by,))
        return (*readings, "effect") if self.by == "all" and has_effect else readings


@dataclass(frozen=True, kw_only=True)
class AblateSettings:
    """Which heads are ablated, and how."""

    heads: HeadNames
    """Which heads, by name, such as 18.6,24.4,17.3-5."""
    kind: Ablated
    """Set the heads' z to zero, or to its mean: of a cache, of the text, or of the lens directory."""
    top: Annotated[int, Ge(1)] = 5
    """Next tokens to show."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the intervals."""

    def __post_init__(self) -> None:
        check(self)
        if not self.heads:
            raise RequestError("no head was named: say which ones to take away")
        if not isinstance(self.heads[0], str):
            raise RequestError(f"heads is {self.heads!r}: name the layer of each too, such as 18.6")

    @property
    def pairs(self) -> tuple[Head, ...]:
        """Layer and head of each, once."""
        return tuple(dict.fromkeys(pairs_of(map(str, self.heads))))
