"""`alens transfer` within a model: the lens of each head on every other head.

In: lenses, and a cache of their model. Out: `TransferMatrix`: forward KL and cross-entropy of each lens on the values
of each head, brought to its coordinates (`rebased`), beside the lens of that head and the mean output.
Shapes: S source heads, T target heads, G groups (documents or sequences).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from alens.evaluation.shards import check_same_model, judged_text
from alens.evaluation.sums import KL, SURPRISE, HeadFigures
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.statistics import bootstrap
from alens.store.cache_reader import Cache
from alens.studies.transfer.judged_rows import TransferReading, check_written, judge, judged_rows, mean_output
from alens.studies.transfer.rebased import Rebased, shares_seen
from alens.studies.transfer.settings import TransferSettings

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """Lenses of one layer on the heads of another: means over pairs of different heads, nats."""

    source: int
    target: int
    pairs: int
    """Pairs of heads; a head on itself is left out unless the layer has one."""
    kl: float
    """KL of the transferred lens less KL of the target's own."""
    kl_interval: Interval | None
    """95 %, by drawing whole documents or sequences; None with a single one, as of the other intervals."""
    cross_entropy: float
    """The same difference of cross-entropies."""
    cross_entropy_interval: Interval | None
    over_mean_output: float
    """KL of the transferred lens less that of the mean output: below 0, it says more than no lens."""
    over_mean_output_interval: Interval | None
    beat_mean_output: int
    """Pairs whose KL is below that of the mean output."""
    best_kl: float
    """The difference in KL with the best source head for each target head, chosen on the same rows."""
    best_cross_entropy: float
    """The same for cross-entropy, with the heads that are best by KL."""
    seen: float | None
    """Share of the variance of the target's output that the source's lens can see."""

    @property
    def beats_mean_output(self) -> bool:
        """The interval of KL over that of the mean output lies below 0."""
        return self.over_mean_output_interval is not None and self.over_mean_output_interval[1] < 0


class SequenceSums(NamedTuple):
    """One figure, summed over the rows of each group; nats."""

    moved_GST: Array
    """Of the lens of S on T."""
    native_GT: Array
    """Of each head's own lens."""
    mean_output_G: Array
    rows_G: Array
    """How many rows each sum is of."""


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
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
    """`no`, or `unknown`: rows may be among them that the fit was trained on."""
    heads: tuple[tuple[int, int], ...]
    """Layer and head."""
    says_nothing: tuple[bool, ...]
    """Of the lens of each head: whether its fit found it to do no better than the mean output."""
    kl_ST: Array
    """Forward KL of the lens of S on T, nats."""
    cross_entropy_ST: Array
    """Of the text's next token, nats."""
    seen_ST: Array | None
    native: tuple[HeadFigures, ...]
    """Of each head's own lens, as it was fitted."""
    mean_output: HeadFigures
    kl_sums: SequenceSums
    cross_entropy_sums: SequenceSums
    seed: int
    """Of the resamples."""

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(layer for layer, _ in self.heads))

    def differences(self, figure: str) -> Array:
        """(S, T): `kl` or `cross_entropy` of the transferred lens less the target's own."""
        native_T = np.array([getattr(of, figure) for of in self.native])
        found: Array = getattr(self, f"{figure}_ST") - native_T
        return found

    @cached_property
    def by_layer(self) -> list[LayerPair]:
        """One for each pair of layers, sources outermost."""
        pairs = [(i, j) for i in self.layers for j in self.layers]
        cells = [self._places(i, j) for i, j in pairs]
        kl, cross_entropy = self.kl_sums, self.cross_entropy_sums
        over_native, over_mean_output = (
            self._intervals(kl, [kl.moved_GST[:, s, t] - less[:, t] for s, t in cells])
            for less in (kl.native_GT, np.broadcast_to(kl.mean_output_G[:, None], kl.native_GT.shape))
        )
        of_cross_entropy = self._intervals(
            cross_entropy,
            [cross_entropy.moved_GST[:, s, t] - cross_entropy.native_GT[:, t] for s, t in cells],
        )
        return [
            self._pair(i, j, cells[n], over_native[n], of_cross_entropy[n], over_mean_output[n])
            for n, (i, j) in enumerate(pairs)
        ]

    def _intervals(self, sums: SequenceSums, of_cells: Sequence[Array]) -> list[Interval | None]:
        """Of the mean over the pairs of each cell."""
        means_GC = np.stack([of_pairs.mean(axis=1) for of_pairs in of_cells], axis=1)
        return bootstrap.mean_intervals(means_GC, sums.rows_G, seed=self.seed)

    def best_sources(self) -> list[int]:
        """For each target the other head whose lens does best on it by KL; itself where there is no other."""
        others_ST = np.where(np.eye(len(self.heads), dtype=bool), np.inf, self.kl_ST)
        return [int(place) for place in others_ST.argmin(axis=0)]

    def _places(self, source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of the pairs of two layers on both axes."""
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
            "mean_output": asdict(self.mean_output),
            "bootstrap": {"level": bootstrap.LEVEL, "resamples": bootstrap.RESAMPLES, "seed": self.seed},
            "layers": [asdict(pair) for pair in self.by_layer],
            "heads": [
                {
                    "layer": layer,
                    "head": head,
                    "says_nothing": self.says_nothing[n],
                    "native": asdict(self.native[n]),
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


def transfer(
    lenses: Lenses,
    cache: Cache,
    *,
    settings: TransferSettings | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> TransferMatrix:
    """Each chosen lens on each chosen head, on rows that the fit held out (on another cache: on what it did not train on).

    Raises `RequestError` when the cache is another model's, or lenses or cache lack a layer or a head.
    """
    settings = settings or TransferSettings()
    check_same_model(lenses, cache)
    check_written(cache, lenses.record.site)
    ground = judged_rows(lenses, cache, judged_text(lenses, cache), settings, device)
    frames, indices = ground.frames(), [lenses.head_index(head) for head in ground.heads]
    maps = {layer: lenses.layer(layer).maps.select(indices).to(ground.device) for layer in ground.layers}
    targets = [(layer, place) for layer in ground.layers for place in range(len(ground.heads))]
    readings = [
        TransferReading(
            layer=j,
            values=Rebased(source=frames[i], target=frames[j], head=place, match=settings.match),
            maps=maps[i],
        )
        for j, place in targets
        for i in ground.layers
    ]
    own = [
        TransferReading(layer=layer, values=lambda values_NHE: values_NHE, maps=maps[layer])
        for layer in ground.layers
    ]
    *found, last = judge(ground, [*readings, *own, mean_output(ground, lenses)], report=report)
    moved, native = found[: len(readings)], found[len(readings) :]
    shape = (len(targets), len(targets))
    means = [of.means() for of in moved]

    def by_sequence(figure: int, rows: str) -> SequenceSums:
        moved_GS, native_GT = (
            np.concatenate([of.sums_GQC[..., figure].cpu().numpy() for of in some], axis=1)
            for some in (moved, native)
        )
        return SequenceSums(
            moved_GST=moved_GS.reshape(-1, *shape).swapaxes(1, 2),
            native_GT=native_GT,
            mean_output_G=last.sums_GQC[:, 0, figure].cpu().numpy(),
            rows_G=getattr(last, rows).cpu().numpy(),
        )

    return TransferMatrix(
        site=ground.site,
        match=settings.match,
        rows=ground.rows,
        sequences=ground.groups.sequences,
        intervals_over=ground.groups.over,
        groups=int((last.rows_G > 0).sum()),
        teacher=ground.teacher,
        shards=ground.shards,
        trained_on=ground.text.trained_on,
        heads=(numbers := tuple((layer, ground.heads[place]) for layer, place in targets)),
        says_nothing=tuple(lenses.record.says_nothing(*number) for number in numbers),
        kl_ST=np.array([of.kl for part in means for of in part]).reshape(shape).T,
        cross_entropy_ST=np.array([of.cross_entropy for part in means for of in part]).reshape(shape).T,
        seen_ST=shares_seen(frames, targets),
        native=tuple(of for sums in native for of in sums.means()),
        mean_output=last.means()[0],
        kl_sums=by_sequence(KL, "rows_G"),
        cross_entropy_sums=by_sequence(SURPRISE, "next_G"),
        seed=settings.seed,
    )
