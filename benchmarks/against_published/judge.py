"""Held-out forward KL of every head: the same rows, the same exact teacher and the same sums for all methods.

In: lenses on z, (H, E, V) and (H, V). Out: their mean KL over held-out rows that no method trains on in
packed form, in nats: the rows, teacher and figures of `alens`.
Shapes: N rows, H heads, E d_head, V vocabulary.
"""

from collections.abc import Callable

import torch

from alens.evaluation.judge import reference_of
from alens.evaluation.readings import Readings, constant_reading, lens_readings
from alens.evaluation.sums import ReadingSums
from alens.heads import Heads
from alens.lens.maps import AffineMaps
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import HeldOutRows
from alens.store.cache_reader import Cache

CPU = torch.device("cpu")


class Judge:
    """Judges lenses of one layer on the last shard of a cache with the exact teacher."""

    def __init__(self, cache: Cache, layer: int, shards: tuple[int, ...], num_rows: int) -> None:
        heads = Heads.grid([layer], range(cache.plan.model.n_heads))
        reader = RowReader(cache, heads, "exact", 1, CPU)
        rows = HeldOutRows(reader=reader, shards=shards, num_rows=num_rows)
        self.parts = [(part, part.values(layer)) for part in rows.parts()]

    def each(self, weight_HEV: torch.Tensor, bias_HV: torch.Tensor) -> list[float]:
        """The KL of each head's own reading."""
        maps = AffineMaps(weight_HEV=weight_HEV, bias_HV=bias_HV)
        return self._kls(len(bias_HV), lambda z_NHE: lens_readings(maps, z_NHE))

    def summed(self, weight_HEV: torch.Tensor, bias_HV: torch.Tensor) -> float:
        """The KL of the sum of all heads' logits, which the published loss makes small."""
        weight_1FV, bias_1V = weight_HEV.flatten(0, 1)[None], bias_HV.sum(0, keepdim=True)
        maps = AffineMaps(weight_HEV=weight_1FV, bias_HV=bias_1V)
        return self._kls(1, lambda z_NHE: lens_readings(maps, z_NHE.flatten(1)[:, None]))[0]

    def mean_output(self, log_mean_output_V: torch.Tensor) -> float:
        """The KL of the mean output: what a lens says that reads nothing."""
        return self._kls(1, lambda _: [constant_reading(log_mean_output_V)])[0]

    def _kls(self, count: int, readings: Callable[[torch.Tensor], list[Readings]]) -> list[float]:
        sums = ReadingSums(count, CPU)
        for part, z_NHE in self.parts:
            sums.add(readings(z_NHE), reference_of(part))
        return [head.kl for head in sums.means()]
