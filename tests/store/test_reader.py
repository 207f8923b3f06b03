import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens.errors import DamageError, RequestError
from alens.store.arrays import ArraySpec, shard_arrays
from alens.store.reader import Cache, open_cache
from alens.store.schema import Plan

Copy = Callable[[Path], Path]
SPECS = [
    "rows/position",
    "rows/sequence",
    "rows/token",
    "sites/attn.z/00",
    "stats/attn.z/00/outer",
    "stats/attn.z/00/sum",
    "stats/output",
    "targets/entropy",
    "targets/ids",
    "targets/log_probs",
    "targets/logsumexp",
    "targets/tail_ids",
]


@pytest.fixture
def store(sealed_tiny: Path, copy_of: Copy) -> Path:
    return copy_of(sealed_tiny)


def shard_file(store: Path, spec: ArraySpec, shard: int) -> Path:
    return store / "arrays.zarr" / spec.name / ".".join(["c", str(shard), *["0"] * (len(spec.shape) - 1)])


def test_these_are_all_arrays(tiny_plan: Plan) -> None:
    assert sorted(shard_arrays(tiny_plan)) == SPECS


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


# Damage: no damaged number is ever returned


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9, "index", "last"])
def test_a_flipped_bit_is_noticed_and_its_file_named(
    store: Path, tiny_plan: Plan, name: str, place: float | str
) -> None:
    spec = shard_arrays(tiny_plan)[name]
    file = shard_file(store, spec, 1)
    data = bytearray(file.read_bytes())
    at = {"index": len(data) - 20, "last": len(data) - 1}.get(str(place))
    data[int(float(place) * (len(data) - 24)) if at is None else at] ^= 0x10
    file.write_bytes(data)
    cache = open_cache(store)
    with pytest.raises(DamageError) as caught:
        cache.read_shard(name, 1)
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    cache.read_shard(name, 0)
    cache.read_shard(name, 2)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer"])
def test_a_file_of_another_size_is_noticed_and_named(
    store: Path, tiny_plan: Plan, name: str, damage: str
) -> None:
    file = shard_file(store, shard_arrays(tiny_plan)[name], 2)
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": data[:-5], "longer": data + b"x"}[damage])
    with pytest.raises(DamageError) as caught:
        open_cache(store).read_shard(name, 2)
    assert str(file) in str(caught.value)
    assert "commits/000002.json" in str(caught.value)  # what to delete to have it rewritten


@pytest.mark.parametrize("name", ["W_O", "W_U", "b_U"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
def test_damaged_weights_are_noticed_and_named(store: Path, name: str, damage: str) -> None:
    (file,) = (store / "arrays.zarr/model" / name).glob("c.*")
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": data[:-5], "flipped": b"\x01\x02" + data[2:]}[damage])
    with pytest.raises(DamageError) as caught:
        open_cache(store).weights(name)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "another shape"])
def test_damaged_array_metadata_is_noticed_and_named(store: Path, damage: str) -> None:
    file = store / "arrays.zarr/targets/ids/zarr.json"
    text = file.read_text()
    if damage == "missing":
        file.unlink()
    else:
        damaged = {"empty": "", "cut": text[:200], "another shape": text.replace("96", "64")}
        file.write_text(damaged[damage])
    with pytest.raises(DamageError) as caught:
        open_cache(store).read("targets/ids", slice(10))
    assert str(file) in str(caught.value)


def test_altered_tokens_are_noticed(demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    data = bytearray((store / "tokens.npy").read_bytes())
    data[-1] ^= 1
    (store / "tokens.npy").write_bytes(data)
    with pytest.raises(DamageError, match=r"tokens\.npy is missing or altered"):
        _ = open_cache(store).tokens


def test_missing_tokens_are_noticed(store: Path) -> None:
    with pytest.raises(DamageError, match=r"tokens\.npy is missing or altered"):
        _ = open_cache(store).tokens


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_damaged_plan_is_noticed(store: Path, text: str) -> None:
    (store / "plan.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DamageError, match=r"plan\.json is not a whole plan"):
        open_cache(store)


# Commits: what has no true record is not there


@pytest.fixture
def unsealed(store: Path) -> Path:
    (store / "MANIFEST.json").unlink()
    return store


def test_without_a_manifest_the_records_count(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").unlink()
    cache = open_cache(unsealed)
    assert (cache.sealed, cache.shards) == (False, (0, 2))


def test_an_uncommitted_shard_cannot_be_read(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").unlink()
    with pytest.raises(DamageError, match=r"shard 1 of .* is not committed"):
        open_cache(unsealed).read("rows/token", slice(None))


def test_a_lost_record_of_a_sealed_cache_is_noticed(store: Path) -> None:
    (store / "commits/000001.json").unlink()
    with pytest.raises(DamageError, match=r"shard 1 of .* is not committed"):
        open_cache(store).read_shard("rows/token", 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"plan": "x"}', "\udcff"])
def test_a_garbled_record_is_an_absent_one(unsealed: Path, text: str) -> None:
    (unsealed / "commits/000001.json").write_bytes(text.encode(errors="surrogateescape"))
    assert open_cache(unsealed).shards == (0, 2)


def test_the_record_of_another_plan_is_an_absent_one(unsealed: Path) -> None:
    file = unsealed / "commits/000001.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "plan": "0" * 64}))
    assert open_cache(unsealed).shards == (0, 2)


def test_the_record_of_another_shard_is_an_absent_one(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").write_bytes((unsealed / "commits/000000.json").read_bytes())
    assert open_cache(unsealed).shards == (0, 2)


def test_foreign_files_among_the_records_are_ignored(unsealed: Path) -> None:
    for name in ("000099.json", "0x.json", "notes.txt", ".000001.json.host-1.partial"):
        (unsealed / "commits" / name).write_text("{}")
    assert open_cache(unsealed).shards == (0, 1, 2)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": "x", "shards": 3}', "\udcff"])
def test_a_manifest_that_is_not_true_does_not_seal(store: Path, text: str) -> None:
    (store / "MANIFEST.json").write_bytes(text.encode(errors="surrogateescape"))
    cache = open_cache(store)
    assert (cache.sealed, cache.shards) == (False, (0, 1, 2))


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_what_is_no_cache_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "place")
    with pytest.raises(RequestError, match=r"place is no cache \(it has no plan.json\)"):
        open_cache(tmp_path / "place")


# Statistics


def test_statistics_are_the_moments_of_the_rows_after_position_0(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    shards, layers = [1, 4], [3, 0]
    rows = np.concatenate([np.arange(shard * 1024, (shard + 1) * 1024) for shard in shards])
    rows = rows[cache.read("rows/position", rows) >= 1]
    statistics = cache.statistics(layers, shards)
    assert statistics.num_rows == len(rows) == 2 * 16 * 63
    for at, layer in enumerate(layers):
        z_NHE = cache.z(layer, rows).astype(np.float64)
        np.testing.assert_allclose(statistics.mean_LHE[at], z_NHE.mean(0), rtol=1e-9, atol=1e-12)
        for head in range(6):
            expected = np.cov(z_NHE[:, head], rowvar=False, bias=True)
            np.testing.assert_allclose(statistics.covariance_LHEE[at, head], expected, rtol=1e-7, atol=1e-9)


def test_the_mean_output_is_a_distribution(demo_cache: Path) -> None:
    mean_V = open_cache(demo_cache).statistics([0], range(6)).mean_output_V
    assert mean_V.shape == (4096,)
    assert mean_V.min() >= 0
    assert mean_V.sum() == pytest.approx(1)
