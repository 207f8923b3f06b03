"""Many readings of the same held-out rows: each part of the rows is read once, and its teacher is made once.

In: a cache, and `TransferReading`s: how a layer's values are changed, and the maps that then read them. Out: for
each of them `ReadingSums`, by document or sequence too.
Shapes: N rows, H heads of a layer, S maps of a reading, E width of the site's values, V vocabulary, G sequences.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch

from alens.errors import RequestError
from alens.evaluation.judge import judge
from alens.evaluation.readings import Readings
from alens.evaluation.shards import JudgedText
from alens.evaluation.sums import ReadingSums
from alens.evaluation.tile_figures import Affine
from alens.evaluation.training import Mask
from alens.heads import Heads
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.lens.maps import AffineMaps, LensMaps
from alens.machine.blocks import teacher_rows
from alens.rows import moments
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import HeldOutPart, HeldOutRows
from alens.statistics.groups import Groups
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z
from alens.studies.transfer.rebased import Frame
from alens.studies.transfer.settings import TransferSettings

log = logging.getLogger("alens")

MOMENT_ROWS = 8192
"""Rows that means and covariances are taken from: means are then known to 1 % of a standard deviation."""

LONG_S = 20.0
"""Work that takes longer, in seconds, is announced before it begins."""


@dataclass(frozen=True, kw_only=True)
class TransferReading:
    """Values of one layer, changed, and read by S maps."""

    layer: int
    values: Callable[[torch.Tensor], torch.Tensor]
    """(N, H, E) of the layer -> (N, S, any width)."""
    maps: LensMaps

    def on(self, part: HeldOutPart) -> Readings:
        """What the maps say on some rows; the values are changed once for all maps."""
        values_NHE = part.values(self.layer)

        def logits(rows: slice) -> Iterator[torch.Tensor]:
            values_BSE = self.values(values_NHE[rows])
            for place in range(self.maps.num_heads):
                yield self.maps.logits(place, values_BSE[:, place])

        maps = self.maps
        if not isinstance(maps, AffineMaps):
            return Readings(logits=logits, count=maps.num_heads)

        def affine(rows: slice) -> Iterator[Affine]:
            values_BSE = self.values(values_NHE[rows])
            for place in range(maps.num_heads):
                yield Affine(values_BSE[:, place], maps.weight_HEV[place], maps.bias_HV[place])

        return Readings(logits=logits, count=maps.num_heads, affine=affine)


@dataclass(frozen=True, kw_only=True)
class JudgedRows:
    """The rows that readings are judged on."""

    cache: Cache
    site: str
    heads: Heads
    text: JudgedText
    num_rows: int | None
    """At most this many rows; None for all."""
    min_position: int
    device: torch.device

    @property
    def shards(self) -> tuple[int, ...]:
        """Shards that hold these rows."""
        return self.text.shards

    @property
    def teacher(self) -> str:
        """Which of the cached distributions readings are held against."""
        return self.cache.plan.settings.best_teacher

    @cached_property
    def reader(self) -> RowReader:
        """Reads the rows that are judged on. Raises `RequestError` when the cache lacks a layer, a head or the site."""
        return self._reader(self.text.sequences_B)

    def _reader(self, sequences_B: Mask | None) -> RowReader:
        return RowReader(
            self.cache,
            self.heads,
            self.teacher,
            self.min_position,
            self.device,
            site=self.site,
            sequences_B=sequences_B,
        )

    @cached_property
    def groups(self) -> Groups:
        """What intervals are over."""
        return Groups.of_shards(self.cache, self.shards)

    @property
    def rows(self) -> int:
        """How many rows are judged on."""
        all_rows = self.reader.num_rows(self.shards)
        return all_rows if self.num_rows is None else min(all_rows, self.num_rows)

    @property
    def other_shards(self) -> tuple[int, ...]:
        """Shards that no reading is judged on, for moments; the same ones where there are no others."""
        judged = {*self.shards}
        return tuple(shard for shard in self.cache.shards if shard not in judged) or self.shards

    def frames(self) -> dict[int, Frame]:
        """Coordinates and moments of each layer, from rows that no reading is judged on where there are any."""
        reader = self._reader(None)
        columns = reader.shard(self.other_shards[0], stop=MOMENT_ROWS)
        on_z = self.site == ATTN_Z and self.cache.plan.model.no_fixed_write is None
        W_O_LHED = torch.from_numpy(self.cache.weights("W_O")).to(self.device) if on_z else None
        frames = {}
        for layer, heads in self.heads.by_layer.items():
            mean_HE, covariance_HEE = moments.of_values(reader.z(columns, layer))
            frames[layer] = Frame(
                W_O_HED=None if W_O_LHED is None else W_O_LHED[layer, list(heads)],
                mean_HE=mean_HE.float(),
                covariance_HEE=covariance_HEE,
            )
        return frames


def check_written(cache: Cache, site: str) -> None:
    """Raises `RequestError` where lenses cannot be applied to other heads: lenses of z need to know what both heads
    write."""
    model = cache.plan.model
    if site == ATTN_Z and (why := model.no_fixed_write) is not None:
        raise RequestError(
            f"{why}: a lens goes to another head by what both write; --to a copy by its z is possible"
        )


def judged_rows(
    lenses: Lenses,
    cache: Cache,
    text: JudgedText,
    settings: TransferSettings,
    device: torch.device | None,
) -> JudgedRows:
    """The rows and the heads to judge on. Raises `RequestError` for what lenses or cache lack."""
    record = lenses.record
    judged = JudgedRows(
        cache=cache,
        site=record.site,
        heads=lenses.chosen(settings.layers, settings.heads).ordered(),
        text=text,
        num_rows=settings.rows,
        min_position=int(record.fit["min_position"]),
        device=device or torch.device("cpu"),
    )
    _ = judged.reader  # says what the cache lacks
    return judged


def as_fitted(lenses: Lenses, judged: JudgedRows) -> list[TransferReading]:
    """A reading for each layer: each lens on the head it was fitted to."""
    return [
        TransferReading(
            layer=layer,
            values=lambda values_NHE: values_NHE,
            maps=lenses.layer(layer)
            .maps.select([lenses.place(layer, head) for head in heads])
            .to(judged.device)
            .folded(),
        )
        for layer, heads in judged.heads.by_layer.items()
    ]


def mean_output(judged: JudgedRows, lenses: Lenses | None) -> TransferReading:
    """A reading that ignores its input and gives the mean output: that of the lenses, else that of the cache."""
    said_V = None if lenses is None else lenses.log_mean_output()
    if said_V is None:
        said_V = torch.from_numpy(judged.cache.log_mean_output(judged.other_shards))
    log_mean_V = said_V.to(judged.device)
    nothing = AffineMaps(weight_HEV=log_mean_V.new_zeros(1, 1, len(log_mean_V)), bias_HV=log_mean_V[None])
    return TransferReading(
        layer=judged.heads.layers[0], values=lambda values_NHE: values_NHE[:, :1, :1] * 0, maps=nothing
    )


def judge_readings(
    judged: JudgedRows,
    readings: Sequence[TransferReading],
    *,
    report: Report = silent,
    stage: str = "transfer",
) -> list[ReadingSums]:
    """The sums of each reading, by document or sequence."""
    rows = HeldOutRows(reader=judged.reader, shards=judged.shards, num_rows=judged.rows)
    _announce(readings, rows)
    ends = list(accumulate(reading.maps.num_heads for reading in readings))
    sums = ReadingSums(ends[-1], judged.device, num_groups=judged.groups.count)
    judge(
        rows,
        lambda part: [reading.on(part) for reading in readings],
        sums,
        groups=judged.groups,
        report=report,
        stage=stage,
    )
    return [sums.select(slice(start, end)) for start, end in pairwise([0, *ends])]


def _announce(readings: Sequence[TransferReading], rows: HeldOutRows) -> None:
    """Before long work, log how long it will take, measured with one reading of a few rows."""
    device = rows.reader.device
    few = replace(rows, num_rows=min(rows.num_rows, teacher_rows(device)))
    for _ in few.parts():  # compares files with their hashes, which is not what is timed
        pass
    largest = max(readings, key=lambda reading: reading.maps.num_heads)
    since = time.monotonic()
    judge(few, lambda part: [largest.on(part)], ReadingSums(largest.maps.num_heads, device))
    each_s = (time.monotonic() - since) / largest.maps.num_heads
    maps = sum(reading.maps.num_heads for reading in readings)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    takes_s = each_s * maps * rows.count / few.count / threads
    if takes_s > LONG_S:
        log.info(
            f"{maps:,} readings of {rows.count:,} rows: about {takes_s / 60:.1f} minutes; "
            "fewer --rows, --layers or --heads take less"
        )
