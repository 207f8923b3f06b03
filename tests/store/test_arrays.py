"""The contract that any Zarr v3 reader relies on, read by zarr alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alens.store.arrays import CHUNK_BYTES, chunk_rows, shard_arrays, token_dtype, weight_arrays
from alens.store.cache_reader import open_cache

# name: shape, dtype, dimensions. Demo model: 4 layers, 6 heads of 32, d_model 192, vocabulary 4096.
FORMAT_1: dict[str, tuple[tuple[int, ...], str, tuple[str, ...]]] = {
    **{
        f"sites/attn.z/{layer:02d}": ((6144, 6, 32), "float16", ("row", "head", "d_head"))
        for layer in range(4)
    },
    "targets/ids": ((6144, 16), "uint16", ("row", "rank")),
    "targets/log_probs": ((6144, 16), "float16", ("row", "rank")),
    "targets/logsumexp": ((6144,), "float32", ("row",)),
    "targets/entropy": ((6144,), "float32", ("row",)),
    "targets/tail_ids": ((6144, 16), "uint16", ("row", "sample")),
    "targets/final": ((6144, 192), "float16", ("row", "d_model")),
    "targets/final_scale": ((6144,), "float32", ("row",)),
    "rows/token": ((6144,), "uint16", ("row",)),
    "rows/sequence": ((6144,), "uint32", ("row",)),
    "rows/position": ((6144,), "uint16", ("row",)),
    **{
        f"stats/attn.z/{layer:02d}/sum": ((6, 6, 32), "float64", ("shard", "head", "d_head"))
        for layer in range(4)
    },
    **{
        f"stats/attn.z/{layer:02d}/outer": (
            (6, 6, 32, 32),
            "float64",
            ("shard", "head", "d_head", "d_head_2"),
        )
        for layer in range(4)
    },
    "stats/output": ((6, 4096), "float64", ("shard", "token")),
    "model/W_O": ((4, 6, 32, 192), "float32", ("layer", "head", "d_head", "d_model")),
    "model/W_U": ((192, 4096), "float32", ("d_model", "token")),
    "model/b_U": ((4096,), "float32", ("token",)),
    "model/norm_gain": ((192,), "float32", ("d_model",)),
    "model/norm_offset": ((192,), "float32", ("d_model",)),
}


@pytest.fixture(scope="module")
def arrays(demo_cache: Path) -> dict[str, Any]:
    group = zarr.open_group(demo_cache / "arrays.zarr", mode="r", zarr_format=3)
    return {name: member for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array)}


def test_zarr_finds_exactly_the_arrays_of_the_format(arrays: dict[str, Any]) -> None:
    assert sorted(arrays) == sorted(FORMAT_1)


@pytest.mark.parametrize("name", sorted(FORMAT_1))
def test_shape_dtype_and_dimensions(arrays: dict[str, Any], name: str) -> None:
    array = arrays[name]
    assert (array.shape, str(array.dtype), array.metadata.dimension_names) == FORMAT_1[name]


def test_every_array_says_what_it_means(arrays: dict[str, Any]) -> None:
    for name, array in arrays.items():
        assert len(array.attrs["meaning"]) > 10, name


def test_a_checksum_is_the_last_codec_of_chunks_and_index(demo_cache: Path) -> None:
    for name in FORMAT_1:
        metadata = json.loads((demo_cache / "arrays.zarr" / name / "zarr.json").read_text())
        (sharding,) = metadata["codecs"]
        assert sharding["name"] == "sharding_indexed"
        assert sharding["configuration"]["codecs"][-1]["name"] == "crc32c", name
        assert sharding["configuration"]["index_codecs"][-1]["name"] == "crc32c", name


def test_fill_values_cannot_be_taken_for_data(arrays: dict[str, Any]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            assert np.isnan(array.fill_value), name
        else:
            assert array.fill_value == np.iinfo(array.dtype).max, name


def test_zarr_reads_the_numbers_that_the_reader_gives(arrays: dict[str, Any], demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    for name, array in arrays.items():
        read = cache.weights(name[6:]) if name.startswith("model/") else cache.read(name, slice(None))
        np.testing.assert_array_equal(array[...], read, err_msg=name)


def test_one_file_a_shard(arrays: dict[str, Any], demo_cache: Path) -> None:
    for name, array in arrays.items():
        files = [path.name for path in (demo_cache / "arrays.zarr" / name).glob("c.*")]
        assert len(files) == (1 if name.startswith("model/") else 6), name
        assert array.shards[0] == (array.shape[0] if name.startswith("model/") else array.shape[0] // 6)


def test_the_exact_teacher_is_stored_only_when_asked_for(tiny_plan: Any) -> None:
    assert "targets/final" not in shard_arrays(tiny_plan)


@pytest.fixture(scope="module", params=["rounded_tiny", "int8_tiny"])
def smaller(request: pytest.FixtureRequest) -> Path:
    store: Path = request.getfixturevalue(request.param)
    return store


def test_further_sites_are_arrays_of_their_own(rounded_tiny: Path, tiny_plan: Any) -> None:
    specs = shard_arrays(open_cache(rounded_tiny).plan)
    assert specs.keys() - shard_arrays(tiny_plan).keys() == {"sites/resid_post/00", "sites/mlp_out/00"}
    for name in ("sites/resid_post/00", "sites/mlp_out/00"):
        assert (specs[name].shape, specs[name].dtype) == ((96, 8), "float16")
        assert specs[name].dimensions == ("row", "d_model")


def test_8_bit_z_has_a_scale_for_each_row_and_head(int8_tiny: Path, tiny_plan: Any) -> None:
    specs = shard_arrays(open_cache(int8_tiny).plan)
    assert specs.keys() - shard_arrays(tiny_plan).keys() == {"scales/attn.z/00"}
    z, scale = specs["sites/attn.z/00"], specs["scales/attn.z/00"]
    assert (z.shape, z.dtype, scale.shape, scale.dtype) == ((96, 2, 4), "int8", (96, 2), "float16")
    assert scale.dimensions == ("row", "head")
    assert "scales/attn.z" in z.meaning


def test_zarr_reads_smaller_z_and_its_scales_too(smaller: Path, values: Any) -> None:
    plan = open_cache(smaller).plan
    group = zarr.open_group(smaller / "arrays.zarr", mode="r", zarr_format=3)
    for name in shard_arrays(plan):
        expected = np.concatenate([values(plan, shard)[name] for shard in range(3)])
        np.testing.assert_array_equal(group[name][...], expected, err_msg=name)
        assert group[name].shape == expected.shape, name


def test_rounded_sites_alone_are_compressed_and_the_checksum_stays_last(smaller: Path) -> None:
    settings = open_cache(smaller).plan.settings
    for name in shard_arrays(open_cache(smaller).plan):
        metadata = json.loads((smaller / "arrays.zarr" / name / "zarr.json").read_text())
        (sharding,) = metadata["codecs"]
        names = [codec["name"] for codec in sharding["configuration"]["codecs"]]
        compressed = settings.keep_bits is not None and name.startswith("sites/")
        assert names == ["bytes", *(["blosc"] if compressed else []), "crc32c"], name


def test_no_array_of_shards_shares_a_name_with_a_weight(tiny_plan: Any) -> None:
    assert not shard_arrays(tiny_plan).keys() & weight_arrays(tiny_plan).keys()


@pytest.mark.parametrize(
    ("row_bytes", "rows", "expected"),
    [
        (4, 1024, 1024),  # all of a small shard
        (CHUNK_BYTES, 8, 1),
        (3 * CHUNK_BYTES, 8, 1),  # a row larger than a chunk may be
        (CHUNK_BYTES // 5, 12, 4),  # 5 would fit, 4 divides 12
    ],
)
def test_chunks_divide_the_shard_and_fit_the_limit(row_bytes: int, rows: int, expected: int) -> None:
    assert chunk_rows(row_bytes, rows) == expected


@pytest.mark.parametrize(
    ("d_vocab", "dtype"), [(50_257, "uint16"), (65_535, "uint16"), (65_536, "uint32"), (128_256, "uint32")]
)
def test_ids_leave_the_largest_value_for_the_fill(d_vocab: int, dtype: str) -> None:
    assert token_dtype(d_vocab) == dtype
    assert d_vocab - 1 < np.iinfo(dtype).max
