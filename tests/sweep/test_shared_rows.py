from typing import Any

import torch

from alens.fit.recipe import Recipe
from alens.rows.teacher import CompressedTeacher, ExactTeacher
from alens.store.cache_reader import open_cache
from alens.sweep.planned import resolve
from alens.sweep.shared_rows import SharedRows

DIFFERENT: list[dict[str, Any]] = [
    {"heads": [4, 1]},
    {"heads": [1], "layers": [3, 0]},
    {"heads": [1], "layers": [1], "teacher": "exact"},
    {"top_k": 3, "tail_samples": 5},
    {"objective": "input-relevance"},
    {},
]


def same(one: Any, other: Any) -> bool:
    assert type(one) is type(other)
    parts = (
        ("ids_NJ", "weights_NJ") if isinstance(one, CompressedTeacher) else ("final_ND", "W_U_DV", "b_U_V")
    )
    assert isinstance(one, (CompressedTeacher, ExactTeacher))
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in (*parts, "entropies"))


def test_each_fit_gets_the_batches_that_a_stream_of_its_own_gives_it(sweep: Any) -> None:
    """To the bit, and laid out alike: products of other strides may round otherwise."""
    request = sweep({"heads": [0, 1, 2, 3, 4, 5]}, variant=DIFFERENT)
    cache = open_cache(request.store)
    planned = resolve(request, cache)
    recipes = [Recipe(fit.variant.settings, cache, torch.device("cpu")) for fit in planned]
    shared = SharedRows(recipes, planned[0].shared_read)
    made = [
        batches for batches, _ in shared.stream.made(2, 12, lambda _, rows: shared.batches(rows, recipes))
    ]
    for place, (recipe, fit) in enumerate(zip(recipes, planned, strict=True)):
        alone = SharedRows([recipe], fit.shared_read)
        stream = type(alone.stream)(
            reader=recipe.reader,
            shards=fit.plan.train_shards,
            batch_rows=fit.variant.settings.batch_rows,
            seed=fit.variant.settings.seed,
            target=recipe.target,
        )
        for mine, shares in zip(stream.batches(2, 12), made, strict=True):
            batch = shares[place]
            assert list(batch.z_NHE) == list(mine.z_NHE) == list(recipe.layers)
            for layer, z_NHE in mine.z_NHE.items():
                assert torch.equal(batch.z_NHE[layer], z_NHE)
                assert batch.z_NHE[layer].is_contiguous() and z_NHE.is_contiguous()
            assert same(batch.teacher, mine.teacher)


def test_what_several_take_is_made_once(sweep: Any) -> None:
    request = sweep(lr=[0.01, 0.02])
    cache = open_cache(request.store)
    planned = resolve(request, cache)
    recipes = [Recipe(fit.variant.settings, cache, torch.device("cpu")) for fit in planned]
    shared = SharedRows(recipes, planned[0].shared_read)
    [(one, other)] = [b for b, _ in shared.stream.made(0, 1, lambda _, rows: shared.batches(rows, recipes))]
    assert one.z_NHE[3] is other.z_NHE[3] and one.teacher is other.teacher
