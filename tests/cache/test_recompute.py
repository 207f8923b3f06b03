"""What the model computes again agrees with every right cache, and with no wrong one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import CacheRequest, demo, write_cache
from alens.cache import tolerance
from alens.cache.array_differences import LargestDifferences
from alens.cache.recompute import Recomputed, recompute
from alens.cache.request import RecomputeRequest
from alens.cache.target_compression import draw_order, sample_tail
from alens.errors import RequestError, StoppedError
from alens.job.progress import Progress, Report
from alens.model import models
from alens.store.arrays import shard_arrays, weight_arrays
from alens.store.cache_reader import open_cache
from alens.store.verify import verify_cache
from alens.store.writer import ShardWriter, put_manifest, put_skeleton

Array = npt.NDArray[Any]
Copy = Callable[[Path], Path]
Request = Callable[..., CacheRequest]

SETTINGS: dict[str, dict[str, Any]] = {
    "float16 z": {"exact_teacher": True},
    "keep_bits": {"keep_bits": 3, "sites": ("resid_post", "mlp_out")},
    "keep_bits 0": {"keep_bits": 0},
    "int8": {"z_dtype": "int8", "sites": ("mlp_out",)},
    "bfloat16 model": {"dtype": "bfloat16", "exact_teacher": True, "sites": ("resid_post",)},
    "float16 model": {"dtype": "float16", "exact_teacher": True},
    "whole vocabulary": {"top_k": 4096},
    "final moments": {"final_moments": True},
    "final moments of int8": {"final_moments": True, "z_dtype": "int8"},
    "moments only": {"moments_only": True},
}

MODELS: dict[tuple[Path, str], models.LoadedModel] = {}


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the demo takes longer than computing with it."""
    load = models.load

    def loaded(source: models.ModelSource, *, dtype: str, device: str, report: Report) -> models.LoadedModel:
        if (source.folder, dtype) not in MODELS:
            MODELS[source.folder, dtype] = load(source, dtype=dtype, device=device)
        return MODELS[source.folder, dtype]

    monkeypatch.setattr(models, "load", loaded)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory, small_request: Request) -> Callable[[str], Path]:
    """Two shards with SMALL and other settings, made on the first request. Shared: copy before writing."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("deep") / "cache"
            write_cache(small_request(made[name], settings={"max_rows": 256, **SETTINGS[name]}))
        return made[name]

    return make


def deep(store: Path, **changes: Any) -> Recomputed:
    work = {name: changes.pop(name) for name in ("report", "should_stop") if name in changes}
    return recompute(open_cache(store), RecomputeRequest(**{"rows": 256, "device": "cpu", **changes}), **work)


def wrong(recomputed: Recomputed) -> set[str]:
    return {comparison.array for comparison in recomputed.comparisons if not comparison.agrees}


def plant(store: Path, shard: int, change: Callable[[dict[str, Array]], None]) -> None:
    """Write a shard with other numbers, with its record and manifest, so that every hash is right."""
    cache = open_cache(store)
    arrays = {name: cache.read_shard(name, shard).copy() for name in shard_arrays(cache.plan)}
    change(arrays)
    ShardWriter(store, cache.plan).write(shard, arrays, {"note": "planted"})
    put_manifest(store, cache.plan, open_cache(store).files_by_shard())
    assert verify_cache(store).whole


# Right caches


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_right_agrees_in_every_array(caches: Callable[[str], Path], name: str) -> None:
    store = caches(name)
    recomputed = deep(store)
    assert wrong(recomputed) == set()
    plan = open_cache(store).plan
    rows = 0 if plan.settings.moments_only else 256
    assert (recomputed.rows, recomputed.shards, recomputed.tail_draws) == (rows, 2, 4 * rows)
    assert recomputed.tail_moved <= 3
    arrays = {name for name in shard_arrays(plan) if not name.endswith("/cross_scale")}
    products = {f"sites/attn.z/{layer:02d} W_O + b_O" for layer in plan.layers if rows}
    weights = {f"model/{name}" for name in ("W_O", "W_U", "b_U", "norm_gain", "norm_offset")}
    assert {c.array for c in recomputed.comparisons} == arrays | products | weights


def test_tolerances_are_tight(caches: Callable[[str], Path]) -> None:
    """In float32 nearly all of the tolerance of z is the rounding of float16, and it is used."""
    for c in deep(caches("float16 z")).comparisons:
        if c.array in ("sites/attn.z/00", "sites/attn.z/02", "targets/final"):
            assert 0.5 < c.difference / c.tolerance <= 1


def test_noise_is_above_what_float32_loses_and_below_float16(demo_cache: Path) -> None:
    plan = open_cache(demo_cache).plan
    assert 2 * 1.1e-5 < tolerance.noise(plan) < 2.0**-11


def test_a_cache_that_another_batch_composition_made_agrees(tmp_path: Path, small_request: Request) -> None:
    store = tmp_path / "store"
    write_cache(small_request(store, settings={"batch_size": 4, "max_rows": 256}))
    assert wrong(deep(store, rows=3)) == set()


def test_rows_are_picked_by_seed(caches: Callable[[str], Path]) -> None:
    store = caches("float16 z")
    assert deep(store, rows=20) == deep(store, rows=20)
    assert deep(store, rows=20) != deep(store, rows=20, seed=1)
    assert deep(store, rows=20).rows == 20
    assert deep(store, rows=10**6).rows == 256


def test_only_committed_shards_are_looked_at(caches: Callable[[str], Path], copy_of: Copy) -> None:
    store = copy_of(caches("float16 z"))
    (store / "MANIFEST.json").unlink()
    (store / "commits/000000.json").unlink()
    recomputed = deep(store)
    assert (recomputed.rows, wrong(recomputed)) == (128, set())
    (store / "commits/000001.json").unlink()
    with pytest.raises(RequestError, match="has no committed shard"):
        deep(store)


# Wrong ones, whose hashes are right


def rolled(*names: str) -> Callable[[dict[str, Array]], None]:
    """Rows of some arrays moved by one place, so that each has another row's values."""

    def change(arrays: dict[str, Array]) -> None:
        for name in names:
            arrays[name][...] = np.roll(arrays[name], 1, axis=0)

    return change


def edited(name: str, edit: Callable[[Array], Any]) -> Callable[[dict[str, Array]], None]:
    """One array changed by a function of it."""

    def change(arrays: dict[str, Array]) -> None:
        arrays[name][...] = edit(arrays[name])

    return change


def swapped_top(ids: Array) -> Array:
    return ids[:, [1, 0, 2, 3]]


def one_row(at: int, change: Callable[[Array], Any]) -> Callable[[Array], Array]:
    def edit(values: Array) -> Array:
        values[at] = change(values[at])
        return values

    return edit


def draw_from_the_top(arrays: dict[str, Array]) -> None:
    arrays["targets/tail_ids"][9] = arrays["targets/ids"][9, 0]


STATS0 = "stats/attn.z/00"
Z0, Z0_OUT = "sites/attn.z/00", "sites/attn.z/00 W_O + b_O"
TARGETS = [f"targets/{name}" for name in ("ids", "log_probs", "logsumexp", "entropy", "tail_ids")]

PLANTED: dict[str, tuple[str, Callable[[dict[str, Array]], None], set[str]]] = {
    "z of another row": ("float16 z", rolled(Z0), {Z0, Z0_OUT}),
    "z of one row": ("float16 z", edited(Z0, one_row(7, lambda z: z * 1.02)), {Z0, Z0_OUT}),
    "heads swapped": ("float16 z", edited(Z0, lambda z: z[:, ::-1]), {Z0, Z0_OUT}),
    "layers swapped": ("float16 z", edited(Z0, lambda z: z * 0), {Z0, Z0_OUT}),
    "not a number": ("float16 z", edited(Z0, one_row(3, lambda z: z * np.nan)), {Z0, Z0_OUT}),
    "rounded z": ("keep_bits", rolled(Z0), {Z0, Z0_OUT}),
    "int8 z": ("int8", rolled(Z0), {Z0, Z0_OUT}),
    "int8 scales": ("int8", rolled("scales/attn.z/00"), {"scales/attn.z/00", Z0, Z0_OUT}),
    "int8 one step": ("int8", edited(Z0, lambda z: np.minimum(z, 125) + 1), {Z0, Z0_OUT}),
    "a further site": ("keep_bits", rolled("sites/resid_post/02"), {"sites/resid_post/02"}),
    "another further site": ("int8", rolled("sites/mlp_out/00"), {"sites/mlp_out/00"}),
    "targets of another row": ("float16 z", rolled(*TARGETS), set(TARGETS)),
    "ids in another order": ("float16 z", edited("targets/ids", swapped_top), {"targets/ids", "targets/log_probs"}),
    "an id twice": ("float16 z", edited("targets/ids", lambda ids: ids[:, [0, 1, 2, 2]]), {"targets/ids", "targets/log_probs", "targets/tail_ids"}),
    "no token": ("float16 z", edited("targets/ids", one_row(5, lambda ids: ids + 60_000)), {"targets/ids", "targets/log_probs", "targets/tail_ids"}),
    "log-probabilities": ("float16 z", edited("targets/log_probs", lambda v: v * np.float16(1.01)), {"targets/log_probs"}),
    "logsumexp": ("float16 z", edited("targets/logsumexp", lambda v: v + np.float32(0.01)), {"targets/logsumexp"}),
    "entropy": ("float16 z", edited("targets/entropy", lambda v: v + np.float32(0.01)), {"targets/entropy"}),
    "a draw from the top": ("float16 z", edited("targets/tail_ids", one_row(9, lambda ids: ids * 0 + 262)), {"targets/tail_ids"}),
    "a draw from the top, where noise allows any other": ("bfloat16 model", draw_from_the_top, {"targets/tail_ids"}),
    "draws in another order": ("float16 z", edited("targets/tail_ids", lambda ids: ids[:, ::-1]), {"targets/tail_ids"}),
    "draws of another row": ("float16 z", rolled("targets/tail_ids"), {"targets/tail_ids"}),
    "scales of the last norm": ("float16 z", rolled("targets/final_scale"), {"targets/final_scale"}),
    "the exact teacher": ("float16 z", rolled("targets/final"), {"targets/final"}),
    "the token": ("float16 z", rolled("rows/token"), {"rows/token"}),
    "the sequence": ("float16 z", rolled("rows/sequence"), {"rows/sequence"}),
    "the position": ("float16 z", edited("rows/position", lambda v: 31 - v), {"rows/position"}),
    "the mean output": ("moments only", edited("stats/output", lambda v: v[:, ::-1]), {"stats/output"}),
    "a sum of z": ("float16 z", edited(f"{STATS0}/sum", lambda v: v * 1.01), {f"{STATS0}/sum"}),
    "products of z": ("int8", edited(f"{STATS0}/outer", lambda v: v * 1.01), {f"{STATS0}/outer"}),
    "a sum of the final residual": ("final moments", edited("stats/final/sum", lambda v: v * 1.01), {"stats/final/sum"}),
    "its squares": ("final moments of int8", edited("stats/final/squares", lambda v: v * 1.01), {"stats/final/squares"}),
    "products of z with it": ("final moments", edited(f"{STATS0}/cross", lambda v: v * np.float16(1.01)), {f"{STATS0}/cross"}),
    "products of int8 z with it": ("final moments of int8", edited(f"{STATS0}/cross", lambda v: v[:, ::-1]), {f"{STATS0}/cross"}),
    "scales of products": ("moments only", edited(f"{STATS0}/cross_scale", lambda v: v * np.float32(1.01)), {f"{STATS0}/cross"}),
    "z in a bfloat16 model": ("bfloat16 model", rolled(Z0), {Z0, Z0_OUT}),
    "targets in a bfloat16 model": ("bfloat16 model", rolled(*TARGETS), set(TARGETS)),
    "z in a float16 model": ("float16 model", rolled(Z0), {Z0, Z0_OUT}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_wrong_is_found_and_nothing_else(
    caches: Callable[[str], Path], copy_of: Copy, name: str
) -> None:
    cache, change, expected = PLANTED[name]
    store = copy_of(caches(cache))
    plant(store, 1, change)
    recomputed = deep(store)
    assert wrong(recomputed) == expected
    assert {c.shard for c in recomputed.comparisons if not c.agrees} == {1}


def test_sums_of_as_many_shards_as_have_the_rows_are_compared(caches: Callable[[str], Path]) -> None:
    for name, rows, shards in (("float16 z", 127, 0), ("float16 z", 128, 1), ("moments only", 1, 1)):
        recomputed = deep(caches(name), rows=rows)
        assert recomputed.shards == shards
        assert {c.shard for c in recomputed.comparisons if c.array == "stats/output"} <= {0, 1}
    with pytest.raises(StoppedError, match="stopped; the sums of 0 of 1 shards"):
        deep(caches("moments only"), rows=1, should_stop=lambda: True)


def test_a_few_rows_are_enough_where_all_are_wrong(caches: Callable[[str], Path], copy_of: Copy) -> None:
    store = copy_of(caches("float16 z"))
    for shard in (0, 1):
        plant(store, shard, rolled(Z0))
    assert Z0 in wrong(deep(store, rows=8))


def test_weights_of_another_model_are_found(caches: Callable[[str], Path], copy_of: Copy) -> None:
    store = copy_of(caches("float16 z"))
    cache = open_cache(store)
    weights = {name: cache.weights(name.removeprefix("model/")) for name in weight_arrays(cache.plan)}
    weights["model/W_O"] = weights["model/W_O"] * np.float32(1 + 2.0**-20)
    put_skeleton(store, cache.plan, weights)
    assert verify_cache(store).whole
    assert wrong(deep(store, rows=4)) == {"model/W_O"}
    weights["model/norm_gain"] = weights["model/norm_gain"] * np.float32(1 + 2.0**-16)
    put_skeleton(store, cache.plan, weights)
    assert wrong(deep(store, rows=4)) == {"model/W_O", "model/norm_gain"}


def test_the_tail_is_compared_in_the_order_in_which_it_is_drawn() -> None:
    """A threshold just within a token's share draws this token."""
    probs_NV = torch.rand(1, 200, generator=torch.Generator().manual_seed(0)).double()
    probs_NV /= probs_NV.sum()
    ids_NK = probs_NV.topk(3).indices
    order = draw_order(200, torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(200))
    masses = probs_NV.scatter(1, ids_NK, 0.0)[:, order]
    middles = ((masses.cumsum(1) - masses / 2) / masses.sum())[masses > 0]
    drawn = sample_tail(probs_NV.float(), ids_NK, middles[None])
    assert drawn[0].tolist() == order[masses[0] > 0].tolist()


def test_nothing_outside_the_top_k_needs_no_draws(caches: Callable[[str], Path], copy_of: Copy) -> None:
    store = copy_of(caches("whole vocabulary"))
    plant(store, 0, edited("targets/tail_ids", one_row(2, lambda ids: ids[::-1] * 0 + 1)))
    assert wrong(deep(store)) == {"targets/tail_ids"}


# The model


def test_another_model_is_refused(caches: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in demo.MODEL.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    store = caches("float16 z")
    assert wrong(deep(store, rows=4, model=str(folder))) == set()
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.bias"] += 0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        RequestError, match=r"has other weights than the model of .* \(demo\): say with --model"
    ):
        deep(store, model=str(folder))


def test_a_model_that_is_gone_is_asked_for(
    caches: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(model: str, revision: str | None = None, **_: object) -> None:
        raise RequestError(f"{model} does not exist")

    monkeypatch.setattr(models, "find", gone)
    with pytest.raises(
        RequestError, match=r"demo does not exist; .* was made with it: say with --model where"
    ):
        deep(caches("float16 z"))
    with pytest.raises(RequestError, match=r"^here does not exist$"):
        deep(caches("float16 z"), model="here")


# While it runs


def test_progress_and_stopping(caches: Callable[[str], Path]) -> None:
    seen: list[Progress] = []
    deep(caches("float16 z"), report=seen.append)
    seen = [p for p in seen if p.stage == "recompute"]
    assert [p.done for p in seen] == [0, 64, 128, 192, 256]
    assert {(p.total, p.unit) for p in seen} == {(256, "rows")}
    with pytest.raises(StoppedError, match="stopped; 0 of 256 rows"):
        deep(caches("float16 z"), should_stop=lambda: True)


def test_nothing_is_written(caches: Callable[[str], Path]) -> None:
    store = caches("float16 z")
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in store.rglob("*")}
    deep(store, rows=4)
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in store.rglob("*")} == before


def test_the_place_that_uses_most_of_its_tolerance_is_kept() -> None:
    differences, rows = LargestDifferences(), np.array([10, 70])
    differences.add(
        "a", torch.tensor([[0.5, 0.25], [0.0, 0.3]]), torch.tensor([[1.0, 0.125], [1.0, 1.0]]), rows
    )
    differences.add("a", torch.tensor([[0.2], [0.0]]), 1.0, rows)
    differences.add("b", torch.tensor([0.0, float("nan")]), 1.0, rows)
    differences.add("c", torch.tensor([0.0, 0.0]), 0.0, None)
    a, b, c = differences.by_array(64)
    assert (a.row, a.shard, a.agrees, a.difference, a.tolerance) == (10, 0, False, 0.25, 0.125)
    assert (b.row, b.shard, b.agrees, b.difference) == (70, 1, False, float("inf"))
    assert (c.row, c.agrees) == (None, True)
