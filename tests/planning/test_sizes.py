"""What is foretold of a cache's files is what the real cache has."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import CacheRequest, write_cache
from alens.cache.tokens import sequences_kept
from alens.errors import RequestError
from alens.planning.run import Estimate
from alens.store.arrays import shard_arrays, weight_arrays
from alens.store.reader import open_cache
from alens.store.schema import CacheSettings

MakeRequest = Callable[..., CacheRequest]
MakeEstimate = Callable[..., Estimate]


def bytes_by_array(store: Path) -> dict[str, int]:
    plan = open_cache(store).plan
    names = [*shard_arrays(plan), *weight_arrays(plan)]
    folders = {name: store / "arrays.zarr" / name for name in names}
    return {name: sum(f.stat().st_size for f in folder.glob("c.*")) for name, folder in folders.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"exact_teacher": True, "layers": None},
        {"z_dtype": "int8", "seq_len": 32},
        {"sites": ("resid_post", "mlp_out"), "top_k": 3},
        {"keep_bits": 4, "sites": ("mlp_out",)},
        {"max_rows": 1500, "rows_per_shard": 512},
    ],
    ids=lambda settings: ",".join(settings) or "float16",
)
def test_what_is_foretold_is_what_is_written(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate, settings: dict[str, Any]
) -> None:
    request = request_for(tmp_path / "store", settings)
    found = estimated(request)
    plan = write_cache(request).cache.plan
    everything = [request.store, *request.store.rglob("*")]
    files = [path for path in everything if path.is_file()]
    real = bytes_by_array(request.store)
    sizes = found.sizes

    assert found.text is not None
    assert found.text.exact
    assert (found.plan.rows, found.plan.num_shards) == (plan.rows, plan.num_shards)
    assert found.plan.tokens.sequences == plan.tokens.sequences
    assert found.plan.tokens.sequences_left_out == plan.tokens.sequences_left_out
    assert (sizes.files, sizes.inodes) == (len(files), len(everything))
    assert found.room.needed_inodes == len(everything)
    assert sizes.tokens_bytes == (request.store / "tokens.npy").stat().st_size
    for array in sizes.arrays:
        expected = pytest.approx(real[array.name], rel=0.03) if array.measured else real[array.name]
        assert array.bytes == expected, array.name
    assert {array.name for array in sizes.arrays if array.measured} == {
        name for name in real if "keep_bits" in settings and name.startswith("sites/")
    }
    largest = max(path.stat().st_size for path in files)
    assert sizes.largest_file[1] == pytest.approx(largest, rel=0.03 if "keep_bits" in settings else 0)
    records = (request.store / "commits").glob("0*.json")
    assert sizes.record_bytes == pytest.approx(max(r.stat().st_size for r in records), rel=0.1)
    assert sizes.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.03)
    written = sum(path.stat().st_blocks * 512 for path in everything)
    assert 0.9 * written < sizes.bytes_to_write(plan.num_shards, 4096, True) < 1.2 * written


def test_the_parts_make_the_whole(tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate) -> None:
    sizes = estimated(request_for(tmp_path / "store")).sizes
    assert sizes.bytes == (
        sizes.bytes_of("row", "shard")
        + sizes.bytes_of("layer", "d_model", "token")
        + sizes.tokens_bytes
        + 4 * sizes.record_bytes
        + sizes.metadata_bytes
    )
    assert sizes.shard_bytes * 4 == sizes.bytes_of("row", "shard") + 4 * sizes.record_bytes
    assert sizes.inodes_to_write(4, True) == sizes.inodes
    assert sizes.inodes_to_write(1, False) == sizes.files_a_shard
    assert sizes.bytes_to_write(2, 1, False) == 2 * sizes.shard_bytes


@pytest.mark.parametrize(
    ("num_tokens", "max_rows", "kept", "left_out"),
    [
        (10 * 64 + 63, None, 8, 2),
        (10 * 64 + 63, 8 * 64, 8, 0),
        (10 * 64 + 63, 9 * 64 + 5, 8, 0),
        (10 * 64 + 63, 12 * 64, 8, 2),
    ],
)
def test_sequences_that_fill_shards(num_tokens: int, max_rows: int | None, kept: int, left_out: int) -> None:
    settings = CacheSettings(seq_len=64, rows_per_shard=256)
    settings = dataclasses.replace(settings, max_rows=max_rows)
    assert sequences_kept("a text", num_tokens, settings) == (kept, left_out)


def test_a_text_that_fills_no_shard_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"^a text gives 192 tokens, 3 sequences of 64: fewer than one shard"
    ):
        sequences_kept("a text", 3 * 64, CacheSettings(seq_len=64, rows_per_shard=256))
