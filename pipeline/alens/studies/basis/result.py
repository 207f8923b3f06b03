"""Figures of causal bases: by basis and head, by layer, and all of them as plain numbers.

In: influences by ablation and sequence. Out: `BasisFidelity` of each basis of a head, `LayerFidelity`, and
`BasisStudy`, which holds them all.
Shapes: A ablations (all of z, each direction, the first directions together), S sequences, K directions, E d_head,
R resamples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.studies.basis.causal_fidelity import RankCorrelation, basic_interval, rank_correlation
from alens.studies.basis.settings import BasisSettings

Array = npt.NDArray[np.float64]

FEW_ROWS = 2000
"""To measure on: with fewer, rho is too high and its interval often misses. Measured: docs/tutorials/basis.md."""


@dataclass(frozen=True, kw_only=True)
class BasisFidelity:
    """One basis of one head. Influences are means over rows, in nats."""

    basis: str
    """`lens`, or one that it is compared with."""
    correlation: RankCorrelation
    lens_influence: list[float]
    """Of each direction on the reading, in the order of the basis."""
    model_influence: list[float]
    """Of each direction on the model's output."""
    lens_whole: float
    """Of all directions of z together on the reading: what is left when the reading sees nothing of the row."""
    model_whole: float
    """Of all directions of z together on the model's output: the head ablated."""
    lens_first: float
    """Of the first directions together on the reading."""
    model_first: float
    """Of the first directions together on the model's output."""

    @property
    def model_share(self) -> float | None:
        """Of the head's effect on the model: what the first directions together have; None where it has none."""
        return self.model_first / self.model_whole if self.model_whole > 0 else None


@dataclass(frozen=True, kw_only=True)
class DirectionSet:
    """A basis and what it does."""

    fidelity: BasisFidelity
    drawn_R: Array
    """The rank correlation in each resample of sequences; not a number where there is none."""
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
    """Heads that have a correlation."""
    rho: float | None
    """Mean of theirs."""
    interval: tuple[float, float] | None
    """95 % of that mean, by drawing sequences; layer and heads are kept."""
    lowest: float | None
    highest: float | None
    model_share: float | None
    """Mean over heads of what the first directions together have of the head's effect on the model."""


@dataclass(frozen=True, kw_only=True)
class BasisStudy:
    """What `alens basis` found."""

    settings: BasisSettings
    directions: int
    rows: int
    """Rows that directions were found on."""
    sequences: int
    positions: int
    """Of each sequence: so many are ablated and measured."""
    trained_on: str
    """`no`, or `unknown`: rows may be among them that the fit was trained on."""
    intervals_over: str
    """What is drawn again: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many of these there are."""
    heads: list[HeadBases]
    layers: list[list[LayerFidelity]]
    """By layer, a record for each basis."""

    @property
    def has_few_rows(self) -> bool:
        """Whether intervals often miss what more text would show."""
        return self.sequences * self.positions < FEW_ROWS

    def to_json(self) -> dict[str, Any]:
        """Plain values; directions are in the file of `basis_file.put`."""
        return {
            "settings": asdict(self.settings),
            "directions": self.directions,
            "rows": self.rows,
            "sequences": self.sequences,
            "positions": self.positions,
            "intervals_over": self.intervals_over,
            "groups": self.groups,
            "trained_on": self.trained_on,
            "layers": [asdict(one) for bases in self.layers for one in bases],
            "heads": [
                {
                    "layer": head.layer,
                    "head": head.head,
                    "says_nothing": head.says_nothing,
                    "bases": [asdict(one.fidelity) for one in head.bases],
                }
                for head in self.heads
            ],
        }


def judge(
    basis: str,
    lens_AS: Array,
    model_AS: Array,
    *,
    positions: int,
    groups_S: npt.NDArray[np.int64],
    seed: int,
) -> tuple[BasisFidelity, Array]:
    """Figures of a basis, and the resampled correlation (R,); inputs are sums over `positions` rows of a
    sequence, and `groups_S` says what is drawn together."""
    rows_S = np.full(lens_AS.shape[1], float(positions))
    member_GS = (groups_S == np.arange(groups_S.max() + 1)[:, None]).astype(np.float64)
    correlation, drawn_R = rank_correlation(
        member_GS @ lens_AS[1:-1].T, member_GS @ model_AS[1:-1].T, member_GS @ rows_S, seed=seed
    )
    lens_A, model_A = (found_AS.sum(1) / rows_S.sum() for found_AS in (lens_AS, model_AS))
    return BasisFidelity(
        basis=basis,
        correlation=correlation,
        lens_influence=lens_A[1:-1].tolist(),
        model_influence=model_A[1:-1].tolist(),
        lens_whole=float(lens_A[0]),
        model_whole=float(model_A[0]),
        lens_first=float(lens_A[-1]),
        model_first=float(model_A[-1]),
    ), drawn_R


def layer_fidelity(layer: int, heads: Sequence[HeadBases]) -> list[LayerFidelity]:
    """A record for each basis of the layer's heads."""
    sets = [one for head in heads if head.layer == layer for one in head.bases]
    found = []
    for name in dict.fromkeys(one.fidelity.basis for one in sets):
        mine = [one for one in sets if one.fidelity.basis == name]
        rhos = [rho for one in mine if (rho := one.fidelity.correlation.rho) is not None]
        drawn_HR = [one.drawn_R for one in mine if one.fidelity.correlation.rho is not None]
        shares = [share for one in mine if (share := one.fidelity.model_share) is not None]
        found.append(
            LayerFidelity(
                layer=layer,
                basis=name,
                heads=len(rhos),
                rho=float(np.mean(rhos)) if rhos else None,
                interval=basic_interval(float(np.mean(rhos)), np.mean(drawn_HR, axis=0)) if rhos else None,
                lowest=min(rhos, default=None),
                highest=max(rhos, default=None),
                model_share=float(np.mean(shares)) if shares else None,
            )
        )
    return found
