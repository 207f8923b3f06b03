"""The files that are estimated for a cache are those that the real cache has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import CacheRequest, write_cache
from alens.planning.result import Estimate
from alens.store.arrays import shard_arrays, weight_arrays
from alens.store.cache_reader import open_cache
from alens.text.corpus import CorpusOptions

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
@pytest.mark.parametrize("column", [None, "document"])
def test_the_estimated_files_are_those_that_are_written(
    tmp_path: Path,
    request_for: MakeRequest,
    estimated: MakeEstimate,
    settings: dict[str, Any],
    column: str | None,
) -> None:
    request = request_for(tmp_path / "store", settings, options=CorpusOptions(document_column=column))
    estimate = estimated(request)
    plan = write_cache(request).cache.plan
    everything = [request.store, *request.store.rglob("*")]
    files = [path for path in everything if path.is_file()]
    real = bytes_by_array(request.store)
    sizes = estimate.sizes

    assert estimate.text is not None
    assert estimate.text.exact
    assert (estimate.plan.rows, estimate.plan.num_shards) == (plan.rows, plan.num_shards)
    assert estimate.plan.tokens.sequences == plan.tokens.sequences
    assert estimate.plan.tokens.sequences_left_out == plan.tokens.sequences_left_out
    assert (sizes.files, sizes.inodes) == (len(files), len(everything))
    assert estimate.space.needed_inodes == len(everything)
    for name in ("held_out_sequences", "selection"):
        assert getattr(estimate.plan.tokens, name) == getattr(plan.tokens, name)
    assert bool(plan.tokens.held_out_sequences) == (column is not None)
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
    options = CorpusOptions(document_column="document")
    sizes = estimated(request_for(tmp_path / "store", options=options)).sizes
    assert sizes.documents_bytes > 0
    assert sizes.bytes == (
        sizes.bytes_of("row", "shard")
        + sizes.bytes_of("layer", "d_model", "token")
        + sizes.tokens_bytes
        + sizes.documents_bytes
        + 4 * sizes.record_bytes
        + sizes.metadata_bytes
    )
    assert sizes.shard_bytes * 4 == sizes.bytes_of("row", "shard") + 4 * sizes.record_bytes
    assert sizes.inodes_to_write(4, True) == sizes.inodes
    assert sizes.inodes_to_write(1, False) == sizes.files_a_shard
    assert sizes.bytes_to_write(2, 1, False) == 2 * sizes.shard_bytes


def test_the_sides_of_a_whole_text_are_estimated(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    text = tmp_path / "rows.txt"
    text.write_text("\n".join(f"A row of text, the {i}th of them." for i in range(300)))
    settings = {"max_rows": None, "rows_per_shard": 256, "layers": (0,)}
    options = CorpusOptions(row_documents=True)
    request = request_for(tmp_path / "store", settings, corpus=str(text), options=options)
    estimate, plan = estimated(request).plan.tokens, write_cache(request).cache.plan.tokens
    assert plan.held_out_sequences
    for name in ("sequences", "sequences_left_out", "held_out_sequences", "documents", "selection"):
        assert getattr(estimate, name) == getattr(plan, name)
