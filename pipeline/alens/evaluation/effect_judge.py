"""The rows on which readings are judged by cause: those of the judged text on which effects of heads were measured.

In: a cache with effects, the heads and the text that are judged. Out: for a panel, sums of each head and reading
(`effect_figures`). Where no judged head has an effect on that text there is nothing to judge.
Shapes: N rows, H heads, D d_model, V vocabulary, G groups, Q readings, C sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from alens.evaluation.additions import CentredProducts
from alens.evaluation.baselines import PartValues
from alens.evaluation.effect_figures import effect_sums
from alens.evaluation.panel import Panel
from alens.evaluation.shards import JudgedText
from alens.heads import Head, Heads
from alens.job.progress import Report, counting
from alens.machine.side_by_side import side_by_side
from alens.rows.columns import Columns, RowReader
from alens.rows.held_out_rows import HeldOutPart
from alens.statistics.bootstrap import Array
from alens.statistics.groups import Groups
from alens.store.arrays import site_name
from alens.store.cache_reader import Cache
from alens.store.effect_reader import EffectStore, Numbers, measured_together


@dataclass(frozen=True, kw_only=True)
class HeadSums:
    """The sums of one head, by group, for each reading that says what the head adds."""

    readings: tuple[str, ...]
    sums_GQC: Array


class EffectJudge:
    """Judges the readings of panels on measured effects. Attributes: `heads`, those that have some; `groups`."""

    def __init__(self, store: EffectStore, cache: Cache, text: JudgedText) -> None:
        self._store, self._cache, self.heads = store, cache, store.heads
        self._chosen = np.flatnonzero(text.mask(cache)[store.rows.sequence_N])
        self._row_N = store.rows.row_N[self._chosen]
        sequence_N = store.rows.sequence_N[self._chosen]
        self.groups = Groups.of(cache, np.unique(sequence_N))
        self.group_N: Numbers = self.groups.numbers(sequence_N)

    @classmethod
    def of_cache(cls, cache: Cache, judged: Heads, text: JudgedText) -> "EffectJudge | None":
        """For the judged heads that have effects; None where there are none on this text."""
        there = measured_together(cache)
        if not (pairs := [pair for pair in judged if pair in there]):
            return None
        judge = cls(EffectStore(cache, Heads.grouped(pairs)), cache, text)
        return judge if judge.rows else None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._row_N)

    @cached_property
    def _group_N(self) -> torch.Tensor:
        return torch.from_numpy(self.group_N)

    def sums(self, panel: Panel, reader: RowReader, report: Report, stage: str) -> dict[Head, HeadSums]:
        """By head, for the heads of a panel that have effects; `reader` is that of the panel's rows."""
        device, by_head = panel.device, dict[Head, HeadSums]()
        layers = [layer for layer in panel.judged.layers if layer in self.heads.by_layer]
        tell = counting(report, stage, "heads", sum(len(self.heads.by_layer[layer]) for layer in layers))
        part = self._part(reader, panel.columns, layers)
        products = CentredProducts(panel.W_U_DV)
        for layer in layers:
            values, numbers = PartValues(part), self.heads.by_layer[layer]
            effects_NHD = torch.from_numpy(self._store.delta(layer)[self._chosen])
            values.site(layer)  # read once, before the threads

            def judge_head(
                place: int,
                layer: int = layer,
                values: PartValues = values,
                effects_NHD: torch.Tensor = effects_NHD,
                numbers: Sequence[int] = numbers,
            ) -> HeadSums:
                additions = panel.additions(values, layer, panel.judged.place(layer, numbers[place]))
                effect_ND = effects_NHD[:, place].to(device, torch.float32)
                group_N = self._group_N.to(device)
                sums_GQC = effect_sums(effect_ND, additions, products, group_N, self.groups.count)
                tell(1)
                return HeadSums(readings=tuple(additions), sums_GQC=sums_GQC.cpu().numpy())

            for head, sums in zip(numbers, side_by_side(judge_head, len(numbers)), strict=True):
                by_head[layer, head] = sums
        return by_head

    def _part(self, reader: RowReader, columns: Sequence[str], layers: Sequence[int]) -> HeldOutPart:
        """The rows, with what additions are made from."""
        names = [name for name in columns if not name.startswith("sites/")]  # of the stream: no head adds it
        by_name = {
            name: self._cache.read(name, self._row_N) for name in (*names, "rows/sequence", "rows/position")
        }
        for layer in layers:
            numbers = list(reader.heads.by_layer[layer])
            by_name[site_name(layer)] = self._cache.z(layer, self._row_N)[:, numbers]
        return HeldOutPart(reader=reader, columns=Columns(by_name))
