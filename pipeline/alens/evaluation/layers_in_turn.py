"""Layers judged one group after the other, so that the maps of many heads never lie in memory together.

In: lenses, a cache, and the rows to judge on. Out: for each group of layers its panel and figures. A lens that is folded to
its vocabulary and the unembedding beside it take 8 E V bytes a head: 226 MB a layer of SmolLM2, 7 GB for all of it. Groups
read the same rows, and what no layer owns (the mean output, the model) is judged with the first group alone, so figures and
intervals are those of a single pass. The teacher's distributions are made once a group and block of rows
(docs/decisions/0058).
Shapes: E width of the site's values, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from alens.evaluation.effect_judge import EffectJudge, HeadSums
from alens.evaluation.judge import judge
from alens.evaluation.panel import Beside, Key, Panel, PanelKeys
from alens.evaluation.reading_figures import Judged
from alens.evaluation.shards import JudgedText
from alens.evaluation.sums import ALL, ReadingSums
from alens.heads import Head, Heads
from alens.job.progress import Progress, Report
from alens.lens.lenses import Lenses
from alens.lens.record import LensRecord
from alens.rows.columns import Columns, RowReader
from alens.rows.held_out_rows import FURTHER_COLUMNS, HeldOutPart, HeldOutRows
from alens.statistics.groups import Groups
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z

SAMPLE_ROWS = 256
"""Rows that the scalars of writes are fitted on: a scalar needs few, and rows of a shard are permuted."""

MAPS_BYTES = 2**30
"""What the maps of one group may take: 4 layers of SmolLM2. A single layer may take more."""


def divided(record: LensRecord, heads: Heads, maps: int) -> list[Heads]:
    """The heads in groups of layers, each of as many as `MAPS_BYTES` hold, and at least one.

    `maps` is how many readings of each head have maps of their own.
    """
    width = record.model.d_head if record.site == ATTN_Z else record.model.d_model
    groups: list[list[int]] = []
    room = 0
    for layer, numbers in heads.by_layer.items():
        size = 4 * maps * len(numbers) * width * record.model.d_vocab
        if not groups or size > room:
            groups.append([])
            room = MAPS_BYTES
        groups[-1].append(layer)
        room -= size
    return [heads.within(layers) for layers in groups]


@dataclass(frozen=True, kw_only=True)
class LayersInTurn:
    """Lenses that are judged on some rows of a cache, a group of layers at a time."""

    lenses: Lenses
    cache: Cache
    heads: Heads
    text: JudgedText
    num_rows: int | None
    """At most this many rows; None for all."""
    seed: int
    resamples: int
    device: torch.device
    beside: Callable[[Groups], Beside]
    """What they are judged beside."""
    effects: EffectJudge | None
    """What readings are judged by beside the model's output; None where the cache has no effects of these heads."""
    token_bytes_V: torch.Tensor | None
    report: Report
    all_shards: bool = False
    """Whether rows are taken from each shard in equal numbers, and not from the first shards alone."""

    @cached_property
    def groups(self) -> Groups:
        """What intervals are over. Raises `RequestError` where the cache lacks what is judged."""
        return Groups.of_shards(self.cache, self.rows(self.heads, ()).shards_read)

    def judged(self) -> Iterator[tuple[PanelKeys, Judged, dict[Head, HeadSums]]]:
        """Which readings each group has, their figures, and sums beside effects. Only one panel exists at a time."""
        beside = self.beside(Groups.of_shards(self.cache, self.text.shards))
        parts = divided(self.lenses.record, self.heads, beside.num_maps)
        of_all: ReadingSums | None = None
        for number, heads in enumerate(parts):
            stage = "eval" if len(parts) == 1 else f"eval, part {number + 1} of {len(parts)}"
            self.report(Progress(stage="preparing the readings"))
            panel = Panel(self.lenses, self.cache, heads, self.device, beside)
            panel.fit(partial(self.sample, heads, panel.columns))
            order = panel.order
            if of_all is None:
                sums = self._sums(panel, heads, order.keys, stage)
                of_all = sums.select(slice(order.num_own, None))
            else:
                sums = self._sums(panel, heads, order.keys[: order.num_own], stage).beside(of_all)
            by_cause: dict[Head, HeadSums] = {}
            if self.effects is not None:
                reader = self.rows(heads, panel.columns).reader
                by_cause = self.effects.sums(panel, reader, self.report, stage.replace("eval", "effects"))
            del panel
            self.report(Progress(stage="intervals"))
            yield order, Judged(sums, seed=self.seed, resamples=self.resamples), by_cause

    def rows(self, heads: Heads, columns: Sequence[str]) -> HeldOutRows:
        """The rows that are judged on, with the values of these heads and further columns."""
        record, shards = self.lenses.record, self.text.shards
        reader = RowReader(
            self.cache,
            heads,
            self.cache.plan.settings.best_teacher,
            int(record.fit["min_position"]),
            self.device,
            site=record.site,
            columns=columns,
            sequences_B=self.text.sequences_B,
        )
        total = reader.num_rows(shards)
        return HeldOutRows(
            reader=reader,
            shards=shards,
            num_rows=total if self.num_rows is None else min(total, self.num_rows),
            all_shards=self.all_shards,
        )

    def sample(self, heads: Heads, columns: Sequence[str]) -> HeldOutPart:
        """A few rows of the text that is judged on, of as many shards as there are rows."""
        reader, shards = self.rows(heads, columns).reader, self.text.shards
        each = max(1, SAMPLE_ROWS // len(shards))
        step = max(1, len(shards) // SAMPLE_ROWS)
        parts = [reader.shard(shard, *FURTHER_COLUMNS, stop=each) for shard in shards[::step]]
        return HeldOutPart(reader=reader, columns=Columns.join([part for part in parts if len(part)]))

    def _sums(self, panel: Panel, heads: Heads, keys: Sequence[Key], stage: str) -> ReadingSums:
        """The sums of some readings of a panel."""
        sums = ReadingSums(len(keys), self.device, num_groups=self.groups.count, figures=ALL)
        return judge(
            self.rows(heads, panel.columns),
            lambda part: panel.readings(part, keys),
            sums,
            groups=self.groups,
            token_bytes_V=self.token_bytes_V,
            report=self.report,
            stage=stage,
        )
