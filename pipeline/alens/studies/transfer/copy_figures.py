"""The result of `transfer_to_copy`: figures of lenses on a fine-tuned copy, beside those on their own model.

In: sums over held-out rows, of the lenses at home and on the copy. Out: `CopyTransfer`, with differences and their
intervals by document or sequence.
Shapes: H heads of all layers, G groups (documents or sequences).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from alens.errors import RequestError
from alens.evaluation.sums import KL, SURPRISE, HeadFigures, ReadingSums
from alens.result import Result, flat, plain
from alens.statistics import bootstrap
from alens.statistics.bootstrap import Array


@dataclass(frozen=True, kw_only=True)
class CopyDifference:
    """Differences of mean figures over heads and rows, nats."""

    kl: float
    kl_interval: tuple[float, float] | None
    """95 %, by drawing whole documents or sequences; None where the two are judged on other rows, or on one
    sequence."""
    cross_entropy: float
    cross_entropy_interval: tuple[float, float] | None
    """Made like that of KL."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """All heads, read in one way: the lenses on the copy, and what they are compared with."""

    by: str
    match: str
    heads: tuple[HeadFigures, ...]
    """Figures on the copy."""
    kl: float
    """Mean over heads, nats."""
    cross_entropy: float
    less_native: CopyDifference | None
    """These figures minus those of the copy's own lenses: what transfer costs. None where those were not given."""
    less_mean_output: CopyDifference
    """These figures minus those of the copy's mean output: below 0, the lenses do better than no lens."""
    less_home: CopyDifference
    """These figures minus those of the same lenses on their own model: the cost of the other model (and text) and of
    transfer together."""
    beat_mean_output: int
    """How many heads have a KL below that of the copy's mean output."""


@dataclass(frozen=True, kw_only=True)
class CopyTransfer(Result):
    """Lenses of a model on its copy; every list of heads follows `heads`."""

    site: str
    same_rows: bool
    """Whether both caches hold the same tokens, and both models are judged on the same of them."""
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
    """`no`, or `unknown`: a fit may have trained on some of the copy's rows."""
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
    """The copy's mean output."""
    ways: tuple[Way, ...]
    seed: int
    """Seed of the resamples."""

    def way(self, by: str, match: str) -> Way:
        """All heads read in one way. Raises `RequestError` where the lenses cannot be read so."""
        for way in self.ways:
            if (way.by, way.match) == (by, match):
                return way
        raise RequestError(f"lenses on {self.site} were not read by {by}, matched by {match}")

    def headline(self) -> str:
        """How many heads there are, and their KL on the copy."""
        ways = ", ".join(f"KL by {way.by}, {way.match} {way.kl:.3f}" for way in self.ways)
        return f"heads: {len(self.heads)}, rows of the copy: {self.rows:,}, {ways}"

    def records(self) -> list[dict[str, Any]]:
        """One row for each way of reading and head."""
        return [
            {"by": way.by, "match": way.match, "layer": layer, "head": head}
            | {"says_nothing": self.says_nothing[n]}
            | flat(plain(way.heads[n]))
            for way in self.ways
            for n, (layer, head) in enumerate(self.heads)
        ]

    def telling(self) -> list[dict[str, Any]]:
        """One row for each way of reading: the mean over heads."""
        return [{"by": way.by, "match": way.match, "kl": way.kl} for way in self.ways]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        body = super().to_json()
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
    """Sums by document or sequence, mean over heads."""
    surprise_G: Array

    @classmethod
    def from_sums(cls, sums: Sequence[ReadingSums]) -> Self:
        """From the sums of readings that together are the heads, in order."""
        return cls(
            figures=tuple(head for part in sums for head in part.means()),
            kl_G=_mean_over_heads([part.sums_GQC[..., KL] for part in sums]),
            surprise_G=_mean_over_heads([part.sums_GQC[..., SURPRISE] for part in sums]),
        )

    def mean(self, figure: str) -> float:
        """The mean of `kl` or `cross_entropy` over heads."""
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

    def way(self, by: str, match: str, judged: JudgedHeads) -> Way:
        """The figures of one way to read, compared with home, the copy's own lenses and its mean output."""
        return Way(
            by=by,
            match=match,
            heads=judged.figures,
            kl=judged.mean("kl"),
            cross_entropy=judged.mean("cross_entropy"),
            less_native=None if self.native is None else self._less(judged, self.native, True),
            less_mean_output=self._less(judged, self.mean, True),
            less_home=self._less(judged, self.home, self.same_rows),
            beat_mean_output=sum(head.kl < self.mean.figures[0].kl for head in judged.figures),
        )

    def _less(self, judged: JudgedHeads, other: JudgedHeads, paired: bool) -> CopyDifference:
        kl, cross_entropy = None, None
        if paired:
            kl = self._interval(judged.kl_G - other.kl_G, self.rows_G)
            cross_entropy = self._interval(judged.surprise_G - other.surprise_G, self.next_G)
        return CopyDifference(
            kl=judged.mean("kl") - other.mean("kl"),
            kl_interval=kl,
            cross_entropy=judged.mean("cross_entropy") - other.mean("cross_entropy"),
            cross_entropy_interval=cross_entropy,
        )

    def _interval(self, sums_G: Array, rows_G: Array) -> tuple[float, float] | None:
        return bootstrap.mean_intervals(sums_G[:, None], rows_G, seed=self.seed)[0]


def _mean_over_heads(parts: Sequence[torch.Tensor]) -> Array:
    """(G,) the mean over heads of (G, H) sums, a part for each layer."""
    means_G: Array = torch.cat(list(parts), dim=1).mean(dim=1).cpu().numpy()
    return means_G
