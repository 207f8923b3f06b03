"""Held-out forward KL of every head: the same rows, the same exact teacher and the same sums for all methods.

In: lenses on z, (H, E, V) and (H, V). Out: their mean KL over held-out rows that no method trains on in
packed form, in nats: the rows, teacher and figures of `alens`.
Shapes: N rows, H heads, E d_head, V vocabulary.
"""

import torch

from alens.evaluation.figures import FigureSums
from alens.lens.maps import AffineMaps
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import held_out_rows
from alens.store.cache_reader import Cache

CPU = torch.device("cpu")


class Judge:
    """Judges lenses of one layer on the last shard of a cache with the exact teacher."""

    def __init__(self, cache: Cache, layer: int, shards: tuple[int, ...], num_rows: int) -> None:
        heads = range(cache.plan.model.n_heads)
        reader = RowReader(cache, [layer], list(heads), "exact", 1, CPU)
        self.parts = [
            (part, reader.z(part.columns, layer)) for part in held_out_rows(reader, shards, num_rows)
        ]

    def each(self, weight_HEV: torch.Tensor, bias_HV: torch.Tensor) -> list[float]:
        """The KL of each head's own reading."""
        sums = FigureSums(len(bias_HV), CPU)
        for part, z_NHE in self.parts:
            sums.add(
                z_NHE,
                AffineMaps(weight_HEV=weight_HEV, bias_HV=bias_HV),
                part.teacher,
                part.choice,
                part.next_ids_N,
            )
        return [head.kl for head in sums.means()]

    def summed(self, weight_HEV: torch.Tensor, bias_HV: torch.Tensor) -> float:
        """The KL of the sum of all heads' logits, which the published loss makes small."""
        sums = FigureSums(1, CPU)
        weight_1FV, bias_1V = weight_HEV.flatten(0, 1)[None], bias_HV.sum(0, keepdim=True)
        for part, z_NHE in self.parts:
            z_N1F = z_NHE.flatten(1)[:, None]
            sums.add(
                z_N1F,
                AffineMaps(weight_HEV=weight_1FV, bias_HV=bias_1V),
                part.teacher,
                part.choice,
                part.next_ids_N,
            )
        return sums.means()[0].kl

    def mean_output(self, log_mean_output_V: torch.Tensor) -> float:
        """The KL of the mean output: what a lens says that reads nothing."""
        sums = FigureSums(1, CPU)
        for part, _ in self.parts:
            nothing_N11 = torch.zeros(len(part.columns), 1, 1)
            maps = AffineMaps(
                weight_HEV=torch.zeros(1, 1, len(log_mean_output_V)), bias_HV=log_mean_output_V[None]
            )
            judged = (part.teacher, part.choice, part.next_ids_N)
            sums.add(nothing_N11, maps, *judged)
        return sums.means()[0].kl
