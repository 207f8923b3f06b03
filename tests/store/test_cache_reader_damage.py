"""A damaged number is never returned, and the error names the file and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alens.errors import DamageError
from alens.store import document
from alens.store.arrays import ArraySpec, shard_arrays
from alens.store.cache_reader import Cache, open_cache
from alens.store.schema import Plan

from ..damage import flip, flipped

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


def shard_file(store: Path, spec: ArraySpec, shard: int) -> Path:
    return store / "arrays.zarr" / spec.name / ".".join(["c", str(shard), *["0"] * (len(spec.shape) - 1)])


def read_whole(cache: Cache, name: str) -> object:
    return cache.weights(name[6:]) if name.startswith("model/") else cache.read(name, slice(None))


def test_these_are_all_arrays(tiny_plan: Plan) -> None:
    assert sorted(shard_arrays(tiny_plan)) == SPECS


# Shards


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9, "index", "last"])
def test_a_flipped_bit_is_noticed_and_its_file_named(
    store: Path, tiny_plan: Plan, name: str, place: float | str
) -> None:
    spec = shard_arrays(tiny_plan)[name]
    file = shard_file(store, spec, 1)
    at = {"index": -20, "last": -1}.get(str(place))
    flip(file, int(float(place) * (file.stat().st_size - 24)) if at is None else at, 0x10)
    cache = open_cache(store)
    with pytest.raises(DamageError) as caught:
        cache.read_shard(name, 1)
    assert str(file) in str(caught.value)
    assert str(caught.value).endswith("; `alens verify --repair` queues shard 1 for rewriting")
    assert len(str(caught.value).splitlines()) == 1
    cache.read_shard(name, 0)
    cache.read_shard(name, 2)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("rounded_tiny", "sites/attn.z/00"),
        ("rounded_tiny", "sites/resid_post/00"),
        ("rounded_tiny", "sites/mlp_out/00"),
        ("int8_tiny", "sites/attn.z/00"),
        ("int8_tiny", "scales/attn.z/00"),
    ],
)
def test_a_flipped_bit_anywhere_in_smaller_z_is_noticed(
    request: pytest.FixtureRequest, copy_of: Copy, written: str, name: str
) -> None:
    """Blosc alone decodes some flipped bits without an error."""
    store = copy_of(request.getfixturevalue(written))
    cache = open_cache(store)
    file = shard_file(store, cache.spec(name), 1)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(flipped(whole, at, 1 << at % 8))
        with pytest.raises(DamageError) as caught:
            cache.read_shard(name, 1)
        assert str(file) in str(caught.value)


def test_z_without_its_scales_is_not_read(int8_tiny: Path, copy_of: Copy) -> None:
    store = copy_of(int8_tiny)
    file = store / "arrays.zarr/scales/attn.z/00/c.1.0"
    file.unlink()
    cache = open_cache(store)
    with pytest.raises(DamageError) as caught:
        cache.z(0, slice(None))
    assert str(file) in str(caught.value)
    cache.z(0, slice(0, 32))


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
    assert str(caught.value).endswith(": `alens verify --repair` queues shard 2 for rewriting")


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


# Metadata: it says how bytes become numbers


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "cut", "another shape", "other bytes first", "spaces"]
)
@pytest.mark.parametrize("name", ["targets/ids", "targets/log_probs", "model/W_U"])
def test_altered_array_metadata_is_noticed_and_named(store: Path, name: str, damage: str) -> None:
    file = store / "arrays.zarr" / name / "zarr.json"
    text = file.read_text()
    file.unlink()
    if damage != "missing":
        damaged = {
            "empty": "",
            "cut": text[:200],
            "another shape": text.replace("96", "64").replace("50", "40"),
            "other bytes first": text.replace('"little"', '"big"'),
            "spaces": json.dumps(json.loads(text)),
        }
        assert damaged[damage] != text
        file.write_text(damaged[damage])
    with pytest.raises(DamageError, match="see `alens verify`") as caught:
        read_whole(open_cache(store), name)
    assert str(file) in str(caught.value)
    read_whole(open_cache(store), "rows/token")


def test_any_byte_of_array_metadata_may_not_change(store: Path) -> None:
    file = store / "arrays.zarr/rows/token/zarr.json"
    whole = file.read_bytes()
    for at in range(0, len(whole), 5):
        file.write_bytes(flipped(whole, at))
        with pytest.raises(DamageError, match=r"rows/token/zarr\.json was altered"):
            open_cache(store).read("rows/token", slice(3))


@pytest.mark.parametrize("damage", ["missing", "altered", "of another plan", "without this array"])
def test_without_a_true_record_of_the_metadata_nothing_is_read(store: Path, damage: str) -> None:
    file = store / "commits/model.json"
    body = document.decode(file.read_bytes(), "model.json")
    file.unlink()
    if damage == "altered":
        file.write_text(json.dumps(body))
    elif damage == "of another plan":
        file.write_bytes(document.encode({**body, "plan": "0" * 64}))
    elif damage == "without this array":
        del body["files"]["rows/token/zarr.json"]
        file.write_bytes(document.encode(body))
    named = "rows/token/zarr.json" if damage == "without this array" else "commits/model.json"
    with pytest.raises(DamageError, match="see `alens verify`") as caught:
        open_cache(store).read("rows/token", slice(3))
    assert str(caught.value).startswith(f"{store}/") and named in str(caught.value)


# Tokens and plan


def test_altered_tokens_are_noticed(demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    flip(store / "tokens.npy", -1)
    with pytest.raises(DamageError, match=r"tokens\.npy is missing or altered"):
        _ = open_cache(store).tokens


def test_missing_tokens_are_noticed(store: Path) -> None:
    with pytest.raises(DamageError, match=r"tokens\.npy is missing or altered"):
        _ = open_cache(store).tokens


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_damaged_plan_is_noticed(store: Path, text: str) -> None:
    (store / "plan.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DamageError, match=r"store/plan\.json is not whole"):
        open_cache(store)


def test_a_plan_with_any_byte_changed_is_damaged(store: Path) -> None:
    file = store / "plan.json"
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(flipped(whole, at))
        with pytest.raises(DamageError, match=r"store/plan\.json (was altered|is not whole) "):
            open_cache(store)
