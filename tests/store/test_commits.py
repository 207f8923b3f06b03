"""Records count only if they are whole, true, and of this plan."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.errors import DamageError
from alens.store import document
from alens.store.cache_reader import open_cache
from alens.store.commits import Commits, fingerprint
from alens.store.paths import StorePaths
from alens.store.schema import Plan

from ..damage import flipped

Edit = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def unsealed(store: Path) -> Path:
    (store / "MANIFEST.json").unlink()
    return store


@pytest.fixture
def commits(store: Path, tiny_plan: Plan) -> Commits:
    return Commits(StorePaths(store), tiny_plan)


def rewrite(file: Path, edit: Edit) -> None:
    """Put another whole document in its place, with the right hash."""
    file.write_bytes(document.encode(edit(document.decode(file.read_bytes(), str(file)))))


# Which shards are there


def test_all_records_of_a_sealed_cache(commits: Commits) -> None:
    assert commits.committed() == (0, 1, 2)
    assert commits.record(2)["shard"] == 2


def test_without_a_manifest_the_records_count(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").unlink()
    cache = open_cache(unsealed)
    assert (cache.sealed, cache.shards) == (False, (0, 2))


def test_an_uncommitted_shard_cannot_be_read(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").unlink()
    with pytest.raises(DamageError, match=r"shard 1 of .* is not committed"):
        open_cache(unsealed).read("rows/token", slice(None))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"plan": "x"}', "\udcff"])
def test_a_garbled_record_is_an_absent_one(unsealed: Path, text: str) -> None:
    (unsealed / "commits/000001.json").write_bytes(text.encode(errors="surrogateescape"))
    assert open_cache(unsealed).shards == (0, 2)


def test_a_record_with_any_byte_changed_is_an_absent_one(unsealed: Path, tiny_plan: Plan) -> None:
    file = unsealed / "commits/000001.json"
    content = file.read_bytes()
    for at in range(0, len(content), 11):
        file.write_bytes(flipped(content, at))
        assert Commits(StorePaths(unsealed), tiny_plan).committed() == (0, 2), at


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: {**record, "plan": "0" * 64},
        lambda record: {name: value for name, value in record.items() if name != "plan"},
        lambda record: {**record, "shard": 0},
        lambda record: {name: value for name, value in record.items() if name != "shard"},
    ],
)
def test_the_record_of_another_plan_or_shard_is_an_absent_one(unsealed: Path, edit: Edit) -> None:
    rewrite(unsealed / "commits/000001.json", edit)
    assert open_cache(unsealed).shards == (0, 2)


def test_the_record_of_another_shard_is_an_absent_one(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").write_bytes((unsealed / "commits/000000.json").read_bytes())
    assert open_cache(unsealed).shards == (0, 2)


def test_a_folder_in_the_place_of_a_record_is_no_record(unsealed: Path) -> None:
    (unsealed / "commits/000001.json").unlink()
    (unsealed / "commits/000001.json").mkdir()
    assert open_cache(unsealed).shards == (0, 2)


def test_foreign_files_among_the_records_are_ignored(unsealed: Path) -> None:
    for name in ("000099.json", "0x.json", "00001.json", "notes.txt", ".000001.json.host-1.partial"):
        (unsealed / "commits" / name).write_text("{}")
    assert open_cache(unsealed).shards == (0, 1, 2)


def test_no_folder_of_records_is_no_shard(commits: Commits, store: Path) -> None:
    (store / "commits").rename(store / "elsewhere")
    assert commits.committed() == ()


# What is remembered


def test_a_record_is_read_once(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    commits.committed()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
    assert commits.committed() == (0, 1, 2)
    assert commits.record(1)["shard"] == 1


def test_a_record_that_went_is_forgotten_and_one_that_came_is_found(commits: Commits, store: Path) -> None:
    assert commits.committed() == (0, 1, 2)
    kept = store / "elsewhere.json"
    (store / "commits/000001.json").rename(kept)
    assert commits.committed() == (0, 2)
    with pytest.raises(DamageError, match="shard 1 of"):
        commits.record(1)
    kept.rename(store / "commits/000001.json")
    assert commits.committed() == (0, 1, 2)


def test_a_shard_that_is_not_committed_has_no_record(commits: Commits, store: Path) -> None:
    (store / "commits/000001.json").unlink()
    with pytest.raises(DamageError) as caught:
        commits.record(1)
    expected = f"shard 1 of {store} is not committed: run `alens cache` again to write it"
    assert str(caught.value) == expected


def test_a_lost_record_of_a_sealed_cache_is_noticed(store: Path) -> None:
    (store / "commits/000001.json").unlink()
    with pytest.raises(DamageError, match=r"shard 1 of .* is not committed"):
        open_cache(store).read_shard("rows/token", 1)


# The manifest


def test_the_manifest_seals_with_the_hash_of_all_files(commits: Commits, store: Path) -> None:
    files = {shard: commits.record(shard)["files"] for shard in range(3)}
    assert commits.fingerprint() == open_cache(store).fingerprint == fingerprint(files)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": "x", "shards": 3}', "\udcff"])
def test_a_garbled_manifest_does_not_seal(store: Path, text: str) -> None:
    (store / "MANIFEST.json").write_bytes(text.encode(errors="surrogateescape"))
    cache = open_cache(store)
    assert (cache.sealed, cache.fingerprint, cache.shards) == (False, None, (0, 1, 2))


@pytest.mark.parametrize("change", [{"plan": "x"}, {"shards": 2}, {"shards": None}])
def test_a_manifest_that_is_not_true_does_not_seal(store: Path, change: dict[str, Any]) -> None:
    rewrite(store / "MANIFEST.json", lambda body: {**body, **change})
    cache = open_cache(store)
    assert (cache.sealed, cache.fingerprint, cache.shards) == (False, None, (0, 1, 2))


def test_a_manifest_with_any_byte_changed_does_not_seal(commits: Commits, store: Path) -> None:
    content = (store / "MANIFEST.json").read_bytes()
    for at in range(len(content)):
        (store / "MANIFEST.json").write_bytes(flipped(content, at))
        assert commits.fingerprint() is None, at


# The skeleton, and fingerprints


def test_the_skeleton_names_all_files_that_are_no_shards(commits: Commits, store: Path) -> None:
    root = store / "arrays.zarr"
    collected = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    of_shards = {key for shard in range(3) for key in commits.record(shard)["files"]}
    skeleton = commits.skeleton()
    assert skeleton is not None
    assert skeleton["files"].keys() == collected - of_shards
    assert skeleton["plan"] == commits.plan.identity


def test_an_altered_skeleton_is_none(commits: Commits, store: Path) -> None:
    file = store / "commits/model.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert commits.skeleton() is None


def test_the_fingerprint_depends_on_every_hash_and_on_nothing_else() -> None:
    files: dict[int, Any] = {
        0: {"a": {"sha256": "1", "bytes": 5}, "b": {"sha256": "2"}},
        1: {"c": {"sha256": "3"}},
    }
    same = {1: {"c": {"sha256": "3"}}, 0: {"b": {"sha256": "2"}, "a": {"sha256": "1", "note": "x"}}}
    other = {**files, 1: {"c": {"sha256": "4"}}}
    assert fingerprint(files) == fingerprint(same) != fingerprint(other)
