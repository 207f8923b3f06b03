"""One read for several fits: the rows of a step, and from them the batch of each fit.

In: recipes whose fits read the same rows in the same order. Out: a `BatchStream` that reads everything any of them
needs, once, and for each recipe the batch that a stream of its own would have given, bit for bit. What several of
them take (the z of a layer, the teacher) is made once.
Shapes: N rows, H heads, E width of the site's values.
"""

from collections.abc import Sequence

import torch

from alens.fit.batches import BatchStream, TrainingBatch
from alens.fit.recipe import Recipe
from alens.job.progress import ShouldStop, never
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import Teacher
from alens.store.arrays import site_name
from alens.store.schema import ATTN_Z
from alens.sweep.planned import SharedRead


class SharedRows:
    """What several recipes read."""

    def __init__(
        self, recipes: Sequence[Recipe], reading: SharedRead, should_stop: ShouldStop = never
    ) -> None:
        one = recipes[0]
        self._on_heads = reading.site == ATTN_Z
        self._heads = sorted({head for recipe in recipes for head in recipe.heads})
        layers = sorted({layer for recipe in recipes for layer in recipe.layers})
        sites = {site_name(layer, reading.site) for layer in layers}
        names = dict.fromkeys(name for recipe in recipes for name in recipe.reader.names())
        reader = RowReader(
            one.cache, layers, self._heads, one.teacher, one.min_position, one.device,
            site=reading.site, columns=[name for name in names if name not in sites],
        )  # fmt: skip
        self.stream = BatchStream(
            reader=reader,
            shards=reading.train_shards,
            batch_rows=reading.batch_rows,
            seed=reading.seed,
            should_stop=should_stop,
        )

    def batches(self, columns: Columns, recipes: Sequence[Recipe]) -> list[TrainingBatch]:
        """The batch of each recipe."""
        z_NHE: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
        teachers: dict[object, Teacher] = {}
        found = []
        for recipe in recipes:
            reader = recipe.reader
            view = self._view(columns, recipe)
            for layer in recipe.layers:
                if (layer, recipe.heads) not in z_NHE:
                    z_NHE[layer, recipe.heads] = reader.z(view, layer)
            kind = (reader.exact, reader.narrow)
            if kind not in teachers:
                teachers[kind] = reader.teacher(view)
            found.append(
                TrainingBatch(
                    z_NHE={layer: z_NHE[layer, recipe.heads] for layer in recipe.layers},
                    teacher=recipe.target(view, teachers[kind]),
                )
            )
        return found

    def _view(self, columns: Columns, recipe: Recipe) -> Columns:
        """The columns as the recipe's own reader would give them."""
        found = {name: columns.by_name[name] for name in recipe.reader.names()}
        if self._on_heads and list(recipe.heads) != self._heads:
            places = [self._heads.index(head) for head in recipe.heads]
            for layer in recipe.layers:
                name = site_name(layer, ATTN_Z)
                found[name] = found[name][:, places]
        return Columns(found)
