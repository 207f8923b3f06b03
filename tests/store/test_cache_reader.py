"""Reading numbers by name, by row, and by meaning. What the cache does not hold is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens.errors import RequestError
from alens.store.cache_reader import Cache, log_shares, open_cache
from alens.store.encoding import dequantise

Copy = Callable[[Path], Path]


# Rows


def test_rows_come_in_the_order_asked_for(store: Path) -> None:
    cache = open_cache(store)
    whole = cache.read("rows/token", slice(None))
    wanted = np.array([95, 0, 33, 32, 31, 64, 0])
    np.testing.assert_array_equal(cache.read("rows/token", wanted), whole[wanted])


@pytest.mark.parametrize(
    "rows", [slice(5, 70), slice(0, 0), slice(90, 200), slice(-3, None), slice(0, 96, 7), slice(9, 3)]
)
def test_slices_mean_what_they_mean_in_numpy(store: Path, rows: slice) -> None:
    cache = open_cache(store)
    np.testing.assert_array_equal(
        cache.z(0, rows), np.concatenate([cache.read_shard("sites/attn.z/00", s) for s in range(3)])[rows]
    )


@pytest.mark.parametrize("rows", [[96], [-1], [0, 1000]])
def test_rows_out_of_range_are_refused(store: Path, rows: list[int]) -> None:
    with pytest.raises(RequestError, match="has entries 0 to 95"):
        open_cache(store).read("rows/token", np.array(rows))


def test_no_rows_are_no_rows(store: Path) -> None:
    assert open_cache(store).z(0, np.array([], dtype=int)).shape == (0, 2, 4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda cache: cache.z(1, slice(1)), "layer 1 is not in .*: it holds layers 0"),
        (lambda cache: cache.head_outputs(slice(1), layers=[0, 7]), "layer 7 is not in"),
        (lambda cache: cache.head_outputs(slice(1), heads=[2]), "head 2 does not exist: tiny has heads 0 to 1"),
        (lambda cache: cache.head_outputs(slice(1), heads=[-1]), "head -1 does not exist"),
        (lambda cache: cache.read("targets/final", slice(1)), "has no array targets/final: it has model/W_O"),
        (lambda cache: cache.weights("W_V"), "has no array model/W_V"),
        (lambda cache: cache.site("resid_post", 0, slice(1)), "does not hold resid_post: cache with --sites resid_post"),
        (lambda cache: cache.site("mlp_out", 3, slice(1)), "layer 3 is not in .*: it holds layers 0"),
        (lambda cache: cache.read("scales/attn.z/00", slice(1)), "has no array scales/attn.z/00: it has model/W_O"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_by_name(store: Path, call: Callable[[Cache], Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        call(open_cache(store))


def test_head_outputs_are_z_times_the_output_weights_of_the_chosen_heads(
    store: Path, tiny_weights: dict[str, Any]
) -> None:
    cache = open_cache(store)
    rows = np.array([40, 3])
    outputs_NLHD = cache.head_outputs(rows, heads=[1])
    assert outputs_NLHD.shape == (2, 1, 1, 8)
    expected = cache.z(0, rows)[:, 1].astype(np.float32) @ tiny_weights["model/W_O"][0, 1]
    np.testing.assert_allclose(outputs_NLHD[:, 0, 0], expected, rtol=1e-5)


# z in 8 bits, and further sites

ROWS = [
    slice(None),
    slice(30, 70),
    slice(5, 5),
    slice(0, 96, 9),
    np.array([95, 0, 33, 32, 0]),
    np.array([], int),
]


@pytest.mark.parametrize("rows", ROWS)
def test_8_bit_z_is_decoded(int8_tiny: Path, rows: Any) -> None:
    cache = open_cache(int8_tiny)
    steps_NHE = np.concatenate([cache.read_shard("sites/attn.z/00", shard) for shard in range(3)])[rows]
    scale_NH = np.concatenate([cache.read_shard("scales/attn.z/00", shard) for shard in range(3)])[rows]
    assert (steps_NHE.dtype, scale_NH.dtype) == (np.int8, np.float16)
    z_NHE = cache.z(0, rows)
    assert z_NHE.dtype == np.float16
    expected = steps_NHE.astype(np.float64) * scale_NH.astype(np.float64)[..., None]
    np.testing.assert_array_equal(z_NHE, expected.astype(np.float16))
    np.testing.assert_array_equal(z_NHE, dequantise(steps_NHE, scale_NH))


def test_head_outputs_are_those_of_decoded_z(int8_tiny: Path, tiny_weights: dict[str, Any]) -> None:
    cache = open_cache(int8_tiny)
    expected = np.einsum("nhe,hed->nhd", cache.z(0, slice(7, 50)).astype(float), tiny_weights["model/W_O"][0])
    np.testing.assert_allclose(cache.head_outputs(slice(7, 50))[:, 0], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("site", ["resid_post", "mlp_out"])
def test_a_further_site_is_read_as_it_was_written(
    rounded_tiny: Path, values: Any, site: str, rows: Any
) -> None:
    cache = open_cache(rounded_tiny)
    written = np.concatenate([values(cache.plan, shard)[f"sites/{site}/00"] for shard in range(3)])
    value_ND = cache.site(site, 0, rows)
    assert (value_ND.dtype, value_ND.shape[1:]) == (np.float16, (8,))
    np.testing.assert_array_equal(value_ND, written[rows])


def test_one_further_site_does_not_bring_the_other(write_tiny: Callable[..., Path], tmp_path: Path) -> None:
    cache = open_cache(write_tiny(tmp_path / "store", sites=("mlp_out",)))
    assert cache.site("mlp_out", 0, slice(3)).shape == (3, 8)
    with pytest.raises(RequestError, match="does not hold resid_post: cache with --sites resid_post"):
        cache.site("resid_post", 0, slice(3))


# What is not a cache


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_what_is_no_cache_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "place")
    with pytest.raises(RequestError, match=r"place is not a cache \(it has no plan.json\)"):
        open_cache(tmp_path / "place")


# The mean output


def test_the_log_of_the_mean_output_is_of_enough_shards(
    demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alens.store.cache_reader.ENOUGH_SHARDS", 2)
    cache = open_cache(demo_cache)
    found_V, mean_V = cache.log_mean_output([4, 1, 2]), cache.summed("stats/output", [4, 1])
    assert found_V.dtype == np.float32
    np.testing.assert_allclose(np.exp(found_V), mean_V / mean_V.sum(), rtol=1e-5)


def test_a_token_without_probability_has_the_smallest_log() -> None:
    found_V = log_shares(np.array([3.0, 0.0, 1.0]))
    assert np.exp(found_V[[0, 2]]) == pytest.approx([0.75, 0.25])
    assert found_V[1] == np.log(np.finfo(np.float32).tiny)
