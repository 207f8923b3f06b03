"""The settings of a study of causal bases."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from alens.errors import RequestError
from alens.fields import check
from alens.heads import HeadNames

Ablation = Literal["mean", "resample"]
CoordinatesKind = Literal["whitened", "raw"]
COMPARED = ("unembedding", "principal", "random")
"""Bases beside the lens's: that of the unembedding as a lens; principal directions of z; random directions."""


@dataclass(frozen=True, kw_only=True)
class BasisSettings:
    """Which directions are searched for, and how their influence is measured."""

    layers: tuple[int, ...] | None = None
    """Layers to study. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to study: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    directions: Annotated[int, Ge(3)] | None = None
    """Directions of each basis, 3 or more for a rank correlation. None: all, d_head."""
    top: Annotated[int, Ge(1)] = 4
    """Also ablate this many of the first directions together."""
    ablation: Ablation = "mean"
    """What takes the place of a direction: its mean, or its value in another row."""
    coordinates: CoordinatesKind = "whitened"
    """The coordinates in which directions are orthogonal."""
    compare: tuple[str, ...] = ("random",)
    """Bases to compare with: unembedding, principal, random; or `none`. Each takes as many runs of the model as the lens's."""
    rows: Annotated[int, Ge(2)] = 1024
    """Held-out rows to find directions on."""
    sequences: Annotated[int, Ge(2)] = 16
    """Other held-out sequences to measure on."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of every draw."""

    def __post_init__(self) -> None:
        check(self)
        for name in self.compare:
            if name not in COMPARED:
                raise RequestError(f"compare is {name!r}: give {' or '.join(COMPARED)}")
        if len(set(self.compare)) != len(self.compare):
            raise RequestError(f"compare is {','.join(self.compare)}: name each once")
        if self.directions is not None and self.directions < self.top:
            raise RequestError(
                f"directions is {self.directions}, and top {self.top} are to be ablated together: "
                f"say --top {self.directions} or fewer, or --directions {self.top} or more"
            )
