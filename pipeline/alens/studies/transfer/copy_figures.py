"""Figures of lenses on a fine-tuned copy: what `alens transfer --to` says.

In: sums over held-out rows, of the lenses at home and on the copy. Out: `CopyTransfer`, with differences and their
intervals by document or sequence.
Shapes: H heads of all layers, G groups (documents or sequences), R resamples.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.evaluation.sums import KL, SURPRISE, HeadFigures, ReadingSums
from alens.statistics import bootstrap

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CopyDifference:
    """A mean over heads and rows, nats."""

    kl: float
    kl_interval: tuple[float, float] | None
    """95 %, by drawing whole documents or sequences; None where the two are not judged on the same rows, or on one sequence."""
    cross_entropy: float
    cross_entropy_interval: tuple[float, float] | None
    """As that of KL."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """All heads, read in one way: the lens on the copy, and what it is compared with."""

    by: str
    match: str
    heads: tuple[HeadFigures, ...]
    """On the copy."""
    kl: float
    """Mean over heads, nats."""
    cross_entropy: float
    less_native: CopyDifference | None
    """Less the copy's own lenses: what transfer costs. None where those were not given."""
    less_mean_output: CopyDifference
    """Less the copy's mean output: below 0, the lenses say more than none."""
    less_home: CopyDifference
    """Less the same lenses on their own model: the other model (and text) and transfer together."""
    beat_mean_output: int
    """Heads whose KL is below that of the copy's mean output."""


@dataclass(frozen=True, kw_only=True)
class CopyTransfer:
    """Lenses of a model on its copy; every list of heads follows `heads`."""

    site: str
    same_rows: bool
    """Both caches hold the same tokens, and both models are judged on the same of them."""
    rows: int
    home_rows: int
    sequences: int
    intervals_over: str
    """What intervals are over: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many of these there are."""
    teacher: str
    shards: tuple[int, ...]
    home_shards: tuple[int, ...]
    trained_on: str
    """`no`, or `unknown`: rows of the copy may be among them that a fit was trained on."""
    heads: tuple[tuple[int, int], ...]
    """Layer and head."""
    says_nothing: tuple[bool, ...]
    """For each lens, whether its fit found it to do no better than the mean output."""
    home: tuple[HeadFigures, ...]
    """The lenses on their own model."""
    home_mean_output: HeadFigures
    native: tuple[HeadFigures, ...] | None
    """The copy's own lenses."""
    native_says_nothing: tuple[bool, ...] | None
    mean_output: HeadFigures
    """Of the copy."""
    ways: tuple[Way, ...]
    seed: int
    """Of the resamples."""

    def way(self, by: str, match: str) -> Way:
        """Raises `RequestError` where the lenses cannot be read so."""
        for way in self.ways:
            if (way.by, way.match) == (by, match):
                return way
        raise RequestError(f"lenses on {self.site} were not read by {by}, matched by {match}")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        body = asdict(self)
        body["bootstrap"] = {
            "level": bootstrap.LEVEL,
            "resamples": bootstrap.RESAMPLES,
            "seed": body.pop("seed"),
        }
        return body


@dataclass(frozen=True, kw_only=True)
class JudgedHeads:
    """Heads in order, judged on one model's rows."""

    figures: tuple[HeadFigures, ...]
    kl_G: Array
    """Sums by sequence, mean over heads."""
    surprise_G: Array

    @classmethod
    def of(cls, sums: Sequence[ReadingSums]) -> Self:
        return cls(
            figures=tuple(head for part in sums for head in part.means()),
            kl_G=_mean_over_heads([part.sums_GQC[..., KL] for part in sums]),
            surprise_G=_mean_over_heads([part.sums_GQC[..., SURPRISE] for part in sums]),
        )

    def mean(self, figure: str) -> float:
        return float(np.mean([getattr(head, figure) for head in self.figures]))


@dataclass(frozen=True, kw_only=True)
class CopyBaselines:
    """What each way is compared with."""

    home: JudgedHeads
    native: JudgedHeads | None
    mean: JudgedHeads
    rows_G: Array
    next_G: Array
    """Rows with a next token."""
    same_rows: bool
    seed: int

    def way(self, by: str, match: str, found: JudgedHeads) -> Way:
        return Way(
            by=by,
            match=match,
            heads=found.figures,
            kl=found.mean("kl"),
            cross_entropy=found.mean("cross_entropy"),
            less_native=None if self.native is None else self._less(found, self.native, True),
            less_mean_output=self._less(found, self.mean, True),
            less_home=self._less(found, self.home, self.same_rows),
            beat_mean_output=sum(head.kl < self.mean.figures[0].kl for head in found.figures),
        )

    def _less(self, found: JudgedHeads, other: JudgedHeads, paired: bool) -> CopyDifference:
        kl, cross_entropy = None, None
        if paired:
            kl = self._interval(found.kl_G - other.kl_G, self.rows_G)
            cross_entropy = self._interval(found.surprise_G - other.surprise_G, self.next_G)
        return CopyDifference(
            kl=found.mean("kl") - other.mean("kl"),
            kl_interval=kl,
            cross_entropy=found.mean("cross_entropy") - other.mean("cross_entropy"),
            cross_entropy_interval=cross_entropy,
        )

    def _interval(self, sums_G: Array, rows_G: Array) -> tuple[float, float] | None:
        return bootstrap.mean_intervals(sums_G[:, None], rows_G, seed=self.seed)[0]


def _mean_over_heads(parts: Sequence[torch.Tensor]) -> Array:
    """(G,) from (G, H) of each layer."""
    found: Array = torch.cat(list(parts), dim=1).mean(dim=1).cpu().numpy()
    return found
