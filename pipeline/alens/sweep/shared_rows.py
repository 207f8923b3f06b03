"""One read for several fits: the rows of a step, and the batch of each fit from them.

In: recipes whose fits read the same rows in the same order. Out: a `BatchStream` that reads once what any of them
needs, and for each recipe the batch that a stream of its own would have given, bit for bit. What several of them use
(the z of a layer, the teacher) is made once.
Shapes: N rows, H heads, E width of the site's values.
"""

from collections.abc import Sequence

import torch

from alens.fit.batches import BatchStream, TrainingBatch
from alens.fit.recipe import Recipe
from alens.heads import Heads
from alens.job.progress import ShouldStop, never
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import Teacher
from alens.store.arrays import site_name
from alens.store.schema import ATTN_Z
from alens.sweep.planned import SharedRead


class SharedRows:
    """The rows that several recipes read."""

    def __init__(
        self, recipes: Sequence[Recipe], shared_read: SharedRead, should_stop: ShouldStop = never
    ) -> None:
        one = recipes[0]
        self._on_heads = shared_read.site == ATTN_Z
        self._heads = Heads.grouped(sorted({pair for recipe in recipes for pair in recipe.heads}))
        sites = {site_name(layer, shared_read.site) for layer in self._heads.layers}
        names = dict.fromkeys(name for recipe in recipes for name in recipe.reader.names())
        reader = RowReader(
            one.cache, self._heads, one.teacher, one.min_position, one.device,
            site=shared_read.site, columns=[name for name in names if name not in sites],
        )  # fmt: skip
        self.stream = BatchStream(
            reader=reader,
            shards=shared_read.train_shards,
            batch_rows=shared_read.batch_rows,
            seed=shared_read.seed,
            should_stop=should_stop,
        )

    def batches(self, columns: Columns, recipes: Sequence[Recipe]) -> list[TrainingBatch]:
        """The batch of each recipe."""
        z_NHE: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
        teachers: dict[object, Teacher] = {}
        made = []
        for recipe in recipes:
            reader = recipe.reader
            view = self._view(columns, recipe)
            for layer, heads in recipe.heads.by_layer.items():
                if (layer, heads) not in z_NHE:
                    z_NHE[layer, heads] = reader.z(view, layer)
            kind = (reader.exact, reader.narrow)
            if kind not in teachers:
                teachers[kind] = reader.teacher(view)
            made.append(
                TrainingBatch(
                    z_NHE={layer: z_NHE[layer, heads] for layer, heads in recipe.heads.by_layer.items()},
                    teacher=recipe.target(view, teachers[kind]),
                )
            )
        return made

    def _view(self, columns: Columns, recipe: Recipe) -> Columns:
        """The columns as the recipe's own reader would give them."""
        by_name = {name: columns.by_name[name] for name in recipe.reader.names()}
        for layer, heads in recipe.heads.by_layer.items() if self._on_heads else ():
            if heads != self._heads.by_layer[layer]:
                name = site_name(layer, ATTN_Z)
                by_name[name] = by_name[name][:, [self._heads.place(layer, head) for head in heads]]
        return Columns(by_name)
