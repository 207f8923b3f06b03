"""The result of `transfer`: figures of each lens on every other head, one by one and by layer.

Shapes: S source heads, T target heads, C cells (pairs of layers), G groups (documents or sequences).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from alens.evaluation.reading_figures import Interval
from alens.evaluation.sums import HeadFigures
from alens.result import Result, plain
from alens.statistics import bootstrap
from alens.statistics.bootstrap import Array


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """Lenses of one layer on the heads of another: means over pairs of different heads, nats."""

    source: int
    target: int
    pairs: int
    """How many pairs of heads; a head on itself is left out unless the layer has no other."""
    kl: float
    """KL of the transferred lens minus KL of the target's own lens."""
    kl_interval: Interval | None
    """95 %, by drawing whole documents or sequences; None with a single one. The other intervals are made alike."""
    cross_entropy: float
    """The same difference of cross-entropies."""
    cross_entropy_interval: Interval | None
    over_mean_output: float
    """KL of the transferred lens minus that of the mean output: below 0, the lens does better than no lens."""
    over_mean_output_interval: Interval | None
    beat_mean_output: int
    """How many pairs have a KL below that of the mean output."""
    best_kl: float
    """The difference in KL with the best source head for each target head, chosen on the same rows."""
    best_cross_entropy: float
    """The same for cross-entropy, with the heads that are best by KL."""
    seen: float | None
    """Share of the variance of the target's output that the source's lens can see."""

    @property
    def beats_mean_output(self) -> bool:
        """Whether the interval of KL over that of the mean output lies below 0."""
        return self.over_mean_output_interval is not None and self.over_mean_output_interval[1] < 0


class GroupSums(NamedTuple):
    """One figure, summed over the rows of each group; nats."""

    moved_GST: Array
    """For the lens of S on T."""
    native_GT: Array
    """For each head's own lens."""
    mean_output_G: Array
    rows_G: Array
    """How many rows each sum is over."""


@dataclass(frozen=True, kw_only=True)
class TransferMatrix(Result):
    """Every lens on every head. Axes S and T follow `heads`."""

    site: str
    match: str
    """One of `rebased.MATCHES`."""
    rows: int
    sequences: int
    intervals_over: str
    """What intervals are over: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many of these there are."""
    teacher: str
    shards: tuple[int, ...]
    trained_on: str
    """`no`, or `unknown`: the fit may have trained on some of the rows."""
    heads: tuple[tuple[int, int], ...]
    """Layer and head."""
    says_nothing: tuple[bool, ...]
    """Whether the fit found the lens of each head to do no better than the mean output."""
    kl_ST: Array
    """Forward KL of the lens of S on T, nats."""
    cross_entropy_ST: Array
    """Cross-entropy of the text's next token, nats."""
    seen_ST: Array | None
    """Share of the variance of the output of T that the lens of S can see; None where it is all."""
    native: tuple[HeadFigures, ...]
    """Figures of each head's own lens, as it was fitted."""
    mean_output: HeadFigures
    kl_sums: GroupSums
    cross_entropy_sums: GroupSums
    seed: int
    """Seed of the resamples."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of `heads`."""
        return tuple(dict.fromkeys(layer for layer, _ in self.heads))

    def differences(self, figure: str) -> Array:
        """(S, T): `kl` or `cross_entropy` of the transferred lens minus that of the target's own lens."""
        native_T = np.array([getattr(own, figure) for own in self.native])
        differences_ST: Array = getattr(self, f"{figure}_ST") - native_T
        return differences_ST

    @cached_property
    def by_layer(self) -> list[LayerPair]:
        """Means over the heads of each pair of layers, sources outermost."""
        pairs = [(i, j) for i in self.layers for j in self.layers]
        cells = [self._places(i, j) for i, j in pairs]
        kl, cross_entropy = self.kl_sums, self.cross_entropy_sums
        over_native, over_mean_output = (
            self._intervals(kl, [kl.moved_GST[:, s, t] - less[:, t] for s, t in cells])
            for less in (kl.native_GT, np.broadcast_to(kl.mean_output_G[:, None], kl.native_GT.shape))
        )
        cross_entropy_intervals = self._intervals(
            cross_entropy,
            [cross_entropy.moved_GST[:, s, t] - cross_entropy.native_GT[:, t] for s, t in cells],
        )
        return [
            self._pair(i, j, cells[n], over_native[n], cross_entropy_intervals[n], over_mean_output[n])
            for n, (i, j) in enumerate(pairs)
        ]

    def _intervals(self, sums: GroupSums, cells: Sequence[Array]) -> list[Interval | None]:
        """Intervals of the mean over the pairs of each cell, whose sums are (G, pairs)."""
        means_GC = np.stack([sums_GP.mean(axis=1) for sums_GP in cells], axis=1)
        return bootstrap.mean_intervals(means_GC, sums.rows_G, seed=self.seed)

    def best_sources(self) -> list[int]:
        """For each target the other head whose lens does best on it by KL; itself where there is no other."""
        others_ST = np.where(np.eye(len(self.heads), dtype=bool), np.inf, self.kl_ST)
        return [int(place) for place in others_ST.argmin(axis=0)]

    def _places(self, source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places of the pairs of two layers, on both axes."""
        in_source, in_target = (
            [n for n, (layer, _) in enumerate(self.heads) if layer == wanted] for wanted in (source, target)
        )
        pairs = [(s, t) for s in in_source for t in in_target if s != t] or [(in_source[0], in_target[0])]
        s, t = np.array(pairs).T
        return s, t

    def _pair(
        self,
        i: int,
        j: int,
        places: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
        kl: Interval | None,
        cross_entropy: Interval | None,
        over_mean_output: Interval | None,
    ) -> LayerPair:
        s, t = places
        kl_ST, cross_entropy_ST = self.differences("kl"), self.differences("cross_entropy")
        best = [
            min((kl_ST[a, b], a, b) for a, b in zip(s, t, strict=True) if b == target) for target in set(t)
        ]
        return LayerPair(
            source=i,
            target=j,
            pairs=len(s),
            kl=float(kl_ST[s, t].mean()),
            kl_interval=kl,
            cross_entropy=float(cross_entropy_ST[s, t].mean()),
            cross_entropy_interval=cross_entropy,
            over_mean_output=float(self.kl_ST[s, t].mean() - self.mean_output.kl),
            over_mean_output_interval=over_mean_output,
            beat_mean_output=int((self.kl_ST[s, t] < self.mean_output.kl).sum()),
            best_kl=float(np.mean([kl for kl, _, _ in best])),
            best_cross_entropy=float(np.mean([cross_entropy_ST[a, b] for _, a, b in best])),
            seen=None if self.seen_ST is None else float(self.seen_ST[s, t].mean()),
        )

    def headline(self) -> str:
        """How many heads there are, and what transfer costs on average."""
        others = ~np.eye(len(self.heads), dtype=bool)
        mean = self.differences("kl")[others].mean() if len(self.heads) > 1 else 0.0
        return f"heads: {len(self.heads)}, rows: {self.rows:,}, KL on other heads: {mean:+.3f} nats"

    def records(self) -> list[dict[str, Any]]:
        """One row for each pair of a source and a target head."""
        differences_ST, cross_entropy_ST = self.differences("kl"), self.differences("cross_entropy")
        return [
            {
                "source_layer": source[0],
                "source_head": source[1],
                "target_layer": target[0],
                "target_head": target[1],
                "kl": float(self.kl_ST[s, t]),
                "kl_difference": float(differences_ST[s, t]),
                "cross_entropy_difference": float(cross_entropy_ST[s, t]),
                "seen": None if self.seen_ST is None else float(self.seen_ST[s, t]),
            }
            for s, source in enumerate(self.heads)
            for t, target in enumerate(self.heads)
        ]

    def telling(self) -> list[dict[str, Any]]:
        """Pairs of different heads, those whose lens reads the other best first."""
        others = [
            record
            for record in self.records()
            if (record["source_layer"], record["source_head"])
            != (record["target_layer"], record["target_head"])
        ]
        return sorted(others, key=lambda record: float(record["kl_difference"]))

    def to_json(self) -> dict[str, Any]:
        """Plain values: what was read, the layers, the heads, and the whole matrices, sources outermost."""
        best = self.best_sources()
        return {
            "site": self.site,
            "match": self.match,
            "rows": self.rows,
            "sequences": self.sequences,
            "intervals_over": self.intervals_over,
            "groups": self.groups,
            "teacher": self.teacher,
            "shards": list(self.shards),
            "trained_on": self.trained_on,
            "mean_output": plain(self.mean_output),
            "bootstrap": {"level": bootstrap.LEVEL, "resamples": bootstrap.RESAMPLES, "seed": self.seed},
            "layers": [plain(pair) for pair in self.by_layer],
            "heads": [
                {
                    "layer": layer,
                    "head": head,
                    "says_nothing": self.says_nothing[n],
                    "native": plain(self.native[n]),
                    "best_source": {"layer": self.heads[best[n]][0], "head": self.heads[best[n]][1]},
                    "best_kl": float(self.kl_ST[best[n], n]),
                }
                for n, (layer, head) in enumerate(self.heads)
            ],
            "kl": self.kl_ST.tolist(),
            "cross_entropy": self.cross_entropy_ST.tolist(),
            "kl_differences": self.differences("kl").tolist(),
            "cross_entropy_differences": self.differences("cross_entropy").tolist(),
            "seen": None if self.seen_ST is None else self.seen_ST.tolist(),
        }
