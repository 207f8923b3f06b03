"""What `alens verify` says and leaves; and that `alens cache` then writes the same bytes again."""

import dataclasses
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import CacheRequest, write_cache
from alens.errors import RequestError
from alens.store import document
from alens.store.arrays import shard_arrays
from alens.store.cache_reader import open_cache
from alens.store.writer import ShardWriter, put_manifest

from ..damage import flip

Copy = Callable[[Path], Path]

Z = "arrays.zarr/sites/attn.z/02"
PROVENANCE = ("plan.json", "commits/", "MANIFEST.json")
"""Documents: they hold times and hosts."""


def numbers(store: Path) -> dict[str, bytes]:
    """Every file but documents, by name."""
    files = {p.relative_to(store).as_posix(): p for p in store.rglob("*") if p.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not name.startswith((*PROVENANCE, "aside/"))
    }


def inodes(store: Path) -> dict[str, tuple[int, int]]:
    files = {p.relative_to(store).as_posix(): p.stat() for p in store.rglob("*") if p.is_file()}
    return {
        name: (status.st_ino, status.st_mtime_ns)
        for name, status in files.items()
        if not name.startswith("aside/")
    }


def again(store: Path, settings: Any) -> Any:
    """`alens cache` with the arguments of `demo_cache`."""
    return write_cache(
        CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu")
    )


@pytest.fixture
def store(demo_cache: Path, copy_of: Copy) -> Path:
    return copy_of(demo_cache)


@pytest.fixture(scope="session")
def settings(demo_cache: Path) -> Any:
    return open_cache(demo_cache).plan.settings


# What it says


def test_a_whole_cache(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("verify", demo_cache)
    files = [path for path in demo_cache.rglob("*") if path.is_file()]
    num_bytes = sum(len(content) for content in numbers(demo_cache).values())
    assert code == 0
    assert out.startswith(f"{len(files)} files, {num_bytes:,} bytes in ")
    assert out.endswith(" s; 6 shards committed, 0 missing\n")
    assert err == ""


def test_findings_are_a_line_each_and_the_error_is_one(run_alens: Any, store: Path) -> None:
    flip(store / f"{Z}/c.1.0.0")
    flip(store / "tokens.npy")
    (store / f"{Z}/c.2.0.0").unlink()
    (store / "notes.txt").touch()
    (store / ".MANIFEST.json.h-1-a.partial").touch()
    code, out, err = run_alens("verify", store)
    assert code == 1
    assert out.splitlines()[:-1] == [
        "damaged     tokens.npy  its SHA-256 is not that of what was written",
        f"damaged     {Z}/c.1.0.0  its SHA-256 is not that of what was written",
        f"missing     {Z}/c.2.0.0  is not there",
        "unfinished  .MANIFEST.json.h-1-a.partial  a file that was not finished",
        "foreign     notes.txt  is a file that no cache has",
        "repairable  MANIFEST.json  --repair would move it into aside/",
        "repairable  commits/000001.json  --repair would move it into aside/",
        "repairable  commits/000002.json  --repair would move it into aside/",
        "repairable  tokens.npy  --repair would move it into aside/",
    ]
    assert err.splitlines()[-1] == (
        f"alens: 2 files damaged, 1 missing in {store}: `alens verify {store} --repair` queues them"
    )


def test_what_is_foreign_or_unfinished_is_no_failure(run_alens: Any, store: Path) -> None:
    (store / "notes.txt").touch()
    (store / "MANIFEST.json").unlink()
    (store / "commits/000004.json").unlink()
    code, out, _ = run_alens("verify", store)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[:-1]] == [
        ["foreign", "notes.txt"], ["unfinished", "commits/000004.json"],
    ]  # fmt: skip
    assert out.endswith("; 5 shards committed, 1 missing\n")


def test_json(run_alens: Any, store: Path) -> None:
    (store / "commits/000004.json").unlink()
    code, out, err = run_alens("verify", store, "--json")
    body = json.loads(out)
    assert code == 1
    assert body["findings"] == [
        {
            "kind": "missing",
            "path": "commits/000004.json",
            "what": "is not there, and the manifest says that shard 4 is committed",
            "mend": "--repair queues shard 4; `alens cache` rewrites it",
        }
    ]
    assert (body["whole"], body["queued"], body["deep"]) == (False, [], None)
    assert (body["repairable"], body["moved_to"]) == (["MANIFEST.json"], {})
    assert (body["shards_committed"], body["shards_missing"]) == (5, 1)
    assert "alens: 1 file missing in" in err


def test_what_no_repair_mends_is_said_where_it_is(run_alens: Any, store: Path) -> None:
    file = store / f"{Z}/c.1.0.0"
    file.unlink()
    file.mkdir()
    code, out, err = run_alens("verify", store, "--repair")
    assert code == 1
    assert out.splitlines()[0] == (
        f"damaged     {Z}/c.1.0.0  is a directory, a file belongs here (move it away, then verify again)"
    )
    assert err.splitlines()[-1] == f"alens: 1 file damaged in {store}: the lines above say what to do"


def test_a_linked_commits_of_another_cache_is_left_alone_and_said(
    run_alens: Any, store: Path, demo_cache: Path, copy_of: Copy, settings: Any
) -> None:
    """Its records are "of another plan"; moved or written anew, they would be lost to that other cache."""
    other = store.with_name("other")
    again(other, dataclasses.replace(settings, max_rows=2048, layers=(2,)))
    before = inodes(other)
    (store / "commits").rename(store.with_name("kept"))
    (store / "commits").symlink_to(other / "commits")
    for arguments in ((), ("--repair",)):
        code, out, _ = run_alens("verify", store, *arguments)
        assert code == 1
        assert "damaged     commits/000000.json  is of another plan (commits is a link, and" in out
        assert "  commits/0" not in "".join(line for line in out.splitlines() if "queued" in line)
    with pytest.raises(RequestError, match=r"/commits is a link to .*: what is there may be another cache's"):
        again(store, settings)
    assert inodes(other) == before and len(before) > 20


def test_what_is_no_cache_is_refused(run_alens: Any, tmp_path: Path) -> None:
    code, out, err = run_alens("verify", tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"alens: {tmp_path} is not a cache (it has no plan.json): give a directory that `alens cache` wrote\n"
    )


def test_a_model_without_deep_is_refused(run_alens: Any, demo_cache: Path) -> None:
    code, _, err = run_alens("verify", demo_cache, "--model", "demo")
    assert (code, err.count("\n")) == (2, 1)
    assert "--model is for --deep" in err


def test_ctrl_c_stops_after_what_was_found(
    run_alens: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(store / "MANIFEST.json")
    from alens.store import hashing

    look = hashing.look

    def look_and_signal(path: Path, recorded: Any) -> Any:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        monkeypatch.setattr(hashing, "look", look)
        return look(path, recorded)

    monkeypatch.setattr(hashing, "look", look_and_signal)
    code, out, err = run_alens("verify", store, "--repair")
    assert code == 75
    assert out == "damaged     MANIFEST.json  was altered or cut: it does not give its own hash\n"
    assert "alens: stopped; " in err and (store / "MANIFEST.json").exists()


# --deep


def test_deep_shows_each_array(run_alens: Any, demo_cache: Path) -> None:
    code, out, _ = run_alens("verify", demo_cache, "--deep", "8", "--device", "cpu")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("agrees ")]
    assert len(lines) == 23
    assert any(line.startswith("agrees      sites/attn.z/03 W_O + b_O  by ") for line in lines)
    assert "8 rows were computed again; 0 of 128 tail draws (0%) fall on another token" in out
    assert "no sums were computed again: that takes --deep with as many rows as a shard has" in out


def test_deep_finds_what_hashes_cannot(run_alens: Any, store: Path) -> None:
    cache = open_cache(store)
    arrays = {name: cache.read_shard(name, 3) for name in shard_arrays(cache.plan)}
    arrays["sites/attn.z/02"] = np.roll(arrays["sites/attn.z/02"], 1, axis=0)
    ShardWriter(store, cache.plan).write(3, arrays, {})
    put_manifest(store, cache.plan, open_cache(store).files_by_shard())
    assert run_alens("verify", store).code == 0
    code, out, err = run_alens("verify", store, "--deep", "64", "--device", "cpu", "--json")
    body = json.loads(out)
    wrong = {c["array"] for c in body["deep"]["arrays"] if not c["agrees"]}
    assert (code, body["whole"], body["deep"]["agrees"]) == (1, True, False)
    assert wrong == {"sites/attn.z/02", "sites/attn.z/02 W_O + b_O"}
    assert err.splitlines()[-1] == (
        f"alens: 2 arrays in {store} are not what the model computes, sites/attn.z/02 among them: move away "
        f"{store}/MANIFEST.json and the records in {store}/commits of shards 3, then run `alens cache` again"
    )


def test_deep_waits_until_the_bytes_are_right(run_alens: Any, store: Path) -> None:
    flip(store / f"{Z}/c.1.0.0")
    code, out, err = run_alens("verify", store, "--deep", "8")
    assert code == 1
    assert "computed again" not in out and err.rstrip().endswith("; --deep was left out")


# --repair, and the cache is what it was


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "record", "swap", "several"])
def test_a_repaired_cache_is_written_to_the_same_bytes(
    run_alens: Any, store: Path, demo_cache: Path, settings: Any, damage: str
) -> None:
    before = inodes(store)
    shards = {1}
    match damage:
        case "flip":
            flip(store / f"{Z}/c.1.0.0")
        case "cut":
            (store / f"{Z}/c.1.0.0").write_bytes(b"")
        case "delete":
            (store / "arrays.zarr/rows/token/c.1").unlink()
        case "record":
            flip(store / "commits/000001.json")
        case "swap":
            shards = {1, 4}
            one, two = ((store / f"{Z}/c.{shard}.0.0").read_bytes() for shard in (1, 4))
            (store / f"{Z}/c.1.0.0").write_bytes(two)
            (store / f"{Z}/c.4.0.0").write_bytes(one)
        case "several":
            shards = {0, 2, 5}
            for shard in shards:
                flip(store / f"arrays.zarr/stats/output/c.{shard}.0")
    code, out, err = run_alens("verify", store, "--repair")
    queued = ["MANIFEST.json", *(f"commits/{shard:06d}.json" for shard in sorted(shards))]
    assert code == 1
    assert [line.split()[1] for line in out.splitlines() if line.startswith("queued")] == queued
    assert f"run `alens cache` again, with the same arguments, to rewrite what was queued in {store}" in out
    assert err.splitlines()[-1].endswith(f" in {store}: run `alens cache` again to rewrite what was queued")
    left = inodes(store)
    second = run_alens("verify", store, "--repair")
    assert (second.code, inodes(store)) == (0, left)
    assert "queued" not in second.stdout
    summary = again(store, settings)
    assert (summary.shards_written, summary.cache.sealed) == (len(shards), True)
    assert numbers(store) == numbers(demo_cache)
    assert open_cache(store).fingerprint == open_cache(demo_cache).fingerprint
    rewritten = {name for name, state in inodes(store).items() if before.get(name) != state}
    assert {name for name in rewritten if name.startswith("arrays.zarr/")} == {
        f"arrays.zarr/{key}" for shard in shards for key in open_cache(store).commits.record(shard)["files"]
    }
    assert {name for name in rewritten if not name.startswith("arrays.zarr/")} == set(queued)
    assert run_alens("verify", store).code == 0


@pytest.mark.parametrize(
    ("name", "queued"),
    [
        ("tokens.npy", "tokens.npy"),
        ("plan.json", "plan.json"),
        ("commits/model.json", "commits/model.json"),
        ("MANIFEST.json", "MANIFEST.json"),
        (f"{Z}/zarr.json", "commits/model.json"),
        ("arrays.zarr/zarr.json", "commits/model.json"),
        ("arrays.zarr/model/W_O/c.0.0.0.0", "commits/model.json"),
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_what_is_no_shard_is_made_anew_and_no_shard_is_written(
    run_alens: Any, store: Path, demo_cache: Path, settings: Any, name: str, queued: str, gone: bool
) -> None:
    before = inodes(store)
    (store / name).unlink() if gone else flip(store / name)
    code, out, _ = run_alens("verify", store, "--repair")
    assert code == (0 if gone and name == "MANIFEST.json" else 1)
    expected = [] if gone and queued == name else [queued]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("queued")] == expected
    summary = again(store, settings)
    assert (summary.shards_written, summary.cache.sealed) == (0, True)
    assert numbers(store) == numbers(demo_cache)
    assert open_cache(store).plan.identity == open_cache(demo_cache).plan.identity
    for path in ("commits/model.json", "MANIFEST.json"):
        assert (store / path).read_bytes() == (demo_cache / path).read_bytes()
    shards = {f"arrays.zarr/{key}" for files in open_cache(store).files_by_shard().values() for key in files}
    assert {path: before[path] for path in shards} == {path: inodes(store)[path] for path in shards}
    code, out, _ = run_alens("verify", store)
    assert (code, len(out.splitlines())) == (0, 1)


def test_all_at_once(run_alens: Any, store: Path, demo_cache: Path, settings: Any) -> None:
    for name in ("plan.json", "tokens.npy", "commits/model.json", f"{Z}/c.3.0.0", f"{Z}/zarr.json"):
        flip(store / name)
    for _ in range(
        3
    ):  # without a plan tokens cannot be checked, without the record of the metadata neither can these
        if run_alens("verify", store, "--repair").code == 0:
            break
        again(store, settings)
    assert run_alens("verify", store).code == 0
    assert numbers(store) == numbers(demo_cache)


@pytest.mark.parametrize(
    "changes", [{"keep_bits": 2}, {"z_dtype": "int8"}, {"sites": ("resid_post", "mlp_out"), "keep_bits": 5}]
)
def test_other_encodings_are_repaired_too(
    run_alens: Any, tmp_path: Path, copy_of: Copy, settings: Any, changes: dict[str, Any]
) -> None:
    chosen = dataclasses.replace(settings, max_rows=3072, layers=(2,), **changes)
    again(tmp_path / "store", chosen)
    damaged = copy_of(tmp_path / "store")
    folders = sorted({p.parent for p in (damaged / "arrays.zarr").rglob("c.1*") if "model" not in p.parts})
    for folder in folders:
        file = next(folder.glob("c.1*"))
        whole = file.read_bytes()
        flip(file)
        code, out, _ = run_alens("verify", damaged)
        name = file.relative_to(damaged).as_posix()
        lines = [line.split()[:2] for line in out.splitlines()[:-1] if not line.startswith("repairable")]
        assert (code, lines) == (1, [["damaged", name]])
        file.write_bytes(whole)
    flip(file)
    run_alens("verify", damaged, "--repair")
    assert again(damaged, chosen).shards_written == 1
    assert numbers(damaged) == numbers(tmp_path / "store")
    assert run_alens("verify", damaged, "--deep", "64", "--device", "cpu").code == 0


def test_documents_that_were_edited_with_their_own_hash_are_queued(run_alens: Any, store: Path) -> None:
    record = store / "commits/000002.json"
    body = document.decode(record.read_bytes(), "it")
    body["files"].pop("rows/token/c.2")
    record.write_bytes(document.encode(body))
    code, out, _ = run_alens("verify", store, "--repair")
    assert code == 1
    assert out.splitlines()[0] == "damaged     commits/000002.json  lacks rows/token/c.2"
    assert not record.exists()
