"""The result of a study of causal bases: figures for each basis of a head, and for each layer.

Shapes: K directions, E d_head, R resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alens.result import Result, flat, plain
from alens.statistics.bootstrap import Array
from alens.studies.basis.settings import BasisSettings

FEW_ROWS = 2000
"""With fewer rows to measure on, rho is too high and its interval often misses. Measured: docs/tutorials/basis.md."""


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """The rank correlation of the influences of K directions on a lens and on the model."""

    rho: float | None
    """Spearman's; None where all influences of one side are equal."""
    p_value: float | None
    """Two-sided: how often random pairing gives as much, the observed one counted, so never 0. Directions are not
    independent draws, so take the random directions beside it for the null."""
    interval: tuple[float, float] | None
    """95 %, by drawing sequences: `causal_fidelity.basic_interval`."""


@dataclass(frozen=True, kw_only=True)
class BasisFidelity:
    """One basis of one head. Influences are means over rows, in nats."""

    basis: str
    """`lens`, or one that it is compared with."""
    correlation: RankCorrelation
    lens_influence: list[float]
    """The influence of each direction on the reading, in the order of the basis."""
    model_influence: list[float]
    """The influence of each direction on the model's output."""
    lens_whole: float
    """The influence on the reading of all directions of z together, so that the reading sees nothing of the row."""
    model_whole: float
    """The influence on the model's output of all directions of z together, which is the head ablated."""
    lens_first: float
    """The influence on the reading of the first directions together."""
    model_first: float
    """The influence on the model's output of the first directions together."""

    @property
    def model_share(self) -> float | None:
        """The share that the first directions together have in the head's effect on the model; None where it has
        none."""
        return self.model_first / self.model_whole if self.model_whole > 0 else None


@dataclass(frozen=True, kw_only=True)
class DirectionSet:
    """A basis and what it does."""

    fidelity: BasisFidelity
    drawn_R: Array
    """The rank correlation in each resample of sequences; NaN where there is none."""
    reads_KE: torch.Tensor
    """The feature of direction k is `(z - mean) reads_k`."""
    writes_KE: torch.Tensor
    """Ablating it by the mean takes the feature times `writes_k` from z."""


@dataclass(frozen=True, kw_only=True)
class HeadBases:
    """All bases of one head; the lens's is the first."""

    layer: int
    head: int
    says_nothing: bool
    """Whether the fit found its lens to do no better than the mean output."""
    mean_E: torch.Tensor
    bases: list[DirectionSet]


@dataclass(frozen=True, kw_only=True)
class LayerFidelity:
    """The heads of a layer together, for one basis."""

    layer: int
    basis: str
    heads: int
    """How many heads have a correlation."""
    rho: float | None
    """The mean of their correlations."""
    interval: tuple[float, float] | None
    """The 95 % interval of that mean, by drawing sequences; layer and heads are kept."""
    lowest: float | None
    highest: float | None
    model_share: float | None
    """Mean over heads of the share that the first directions together have in the head's effect on the model."""


@dataclass(frozen=True, kw_only=True)
class BasisStudy(Result):
    """The causal bases of heads, and how faithful their lenses are to them."""

    settings: BasisSettings
    directions: int
    rows: int
    """Rows that directions were found on."""
    sequences: int
    """Other sequences that influences were measured on."""
    positions: int
    """How many positions of each sequence were ablated and measured."""
    trained_on: str
    """`no`, or `unknown`: the fit may have trained on some of the rows."""
    intervals_over: str
    """What is drawn again: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many of these there are."""
    heads: list[HeadBases]
    layers: list[list[LayerFidelity]]
    """For each layer, a record for each basis."""

    @property
    def has_few_rows(self) -> bool:
        """Whether there are so few rows that intervals often miss what more text would show."""
        return self.sequences * self.positions < FEW_ROWS

    def headline(self) -> str:
        """The number of heads and the mean rho of their lenses."""
        rhos = [head.bases[0].fidelity.correlation.rho for head in self.heads]
        known = [rho for rho in rhos if rho is not None]
        mean = f"{np.mean(known):.2f}" if known else "unknown"
        return f"heads: {len(self.heads)}, directions: {self.directions}, mean rho of lens and model: {mean}"

    def records(self) -> list[dict[str, Any]]:
        """One row for each head and basis."""
        return [
            {"layer": head.layer, "head": head.head, "says_nothing": head.says_nothing}
            | flat(plain(basis.fidelity))
            for head in self.heads
            for basis in head.bases
        ]

    def telling(self) -> list[dict[str, Any]]:
        """The lens's own basis of each head, the highest correlation first."""
        own = [
            record for record in self.records() if record["basis"] == self.heads[0].bases[0].fidelity.basis
        ]
        return sorted(own, key=lambda record: -(record["correlation.rho"] or -1.0))

    def to_json(self) -> dict[str, Any]:
        """Plain values without the directions, which are in the file of `basis_file.put`."""
        return {
            "settings": plain(self.settings),
            "directions": self.directions,
            "rows": self.rows,
            "sequences": self.sequences,
            "positions": self.positions,
            "intervals_over": self.intervals_over,
            "groups": self.groups,
            "trained_on": self.trained_on,
            "layers": [plain(one) for bases in self.layers for one in bases],
            "heads": [
                {
                    "layer": head.layer,
                    "head": head.head,
                    "says_nothing": head.says_nothing,
                    "bases": [plain(one.fidelity) for one in head.bases],
                }
                for head in self.heads
            ],
        }
