"""Damage of every kind, in every kind of file: each is named, and nothing else; repair queues it, and nothing else."""

import dataclasses
import errno
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens.errors import RequestError, RunError, StoppedError
from alens.job.progress import Progress
from alens.store import document, durable, findings, foreign
from alens.store.arrays import all_arrays, shard_arrays, weight_arrays
from alens.store.cache_reader import open_cache
from alens.store.findings import Finding
from alens.store.repair import repair
from alens.store.schema import Plan
from alens.store.verify import Verdict, verify_cache
from alens.store.writer import ShardWriter, put_manifest, put_skeleton

from ..damage import flip, flipped
from ..folders import contents, file_names, states

ENCODINGS: dict[str, dict[str, Any]] = {
    "float16": {"exact_teacher": True},
    "keep_bits": {"keep_bits": 3, "sites": ("resid_post",)},
    "int8": {"z_dtype": "int8"},
}
Z = "arrays.zarr/sites/attn.z/00"


@pytest.fixture(scope="session")
def wholes(
    tmp_path_factory: pytest.TempPathFactory, tiny_plan: Plan, values: Any, tiny_weights: dict[str, Any]
) -> dict[str, Path]:
    """A sealed cache of 3 shards with tokens, in each encoding. Shared: copy it before writing."""
    roots = {}
    for name, changes in ENCODINGS.items():
        root = roots[name] = tmp_path_factory.mktemp("whole") / name
        root.mkdir()
        np.save(root / "tokens.npy", np.arange(96, dtype=np.uint16).reshape(12, 8) % 50)
        plan = dataclasses.replace(
            tiny_plan,
            settings=dataclasses.replace(tiny_plan.settings, **changes),
            tokens=dataclasses.replace(tiny_plan.tokens, sha256=durable.sha256_of(root / "tokens.npy")),
        )
        put_skeleton(root, plan, tiny_weights)
        for shard in range(plan.num_shards):
            write(root, plan, values, shard)
        put_manifest(root, plan, open_cache(root).files_by_shard())
    return roots


@pytest.fixture(params=ENCODINGS)
def every(request: pytest.FixtureRequest, wholes: dict[str, Path], copy_of: Callable[[Path], Path]) -> Path:
    """A copy of a whole cache, in one encoding after the other."""
    return copy_of(wholes[request.param])


@pytest.fixture
def store(wholes: dict[str, Path], copy_of: Callable[[Path], Path]) -> Path:
    """A copy of a whole cache."""
    return copy_of(wholes["float16"])


def write(root: Path, plan: Plan, values: Any, shard: int) -> None:
    ShardWriter(root, plan).write(shard, values(plan, shard), {"note": "by a test"})


def short(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in verdict.findings]


def only(root: Path) -> Finding:
    """The one finding there is."""
    verdict = verify_cache(root)
    assert len(verdict.findings) == 1, verdict.findings
    return verdict.findings[0]


def edit(path: Path, **changes: Any) -> None:
    """Changes a document so that it gives its own hash again."""
    path.write_bytes(document.encode({**document.decode(path.read_bytes(), "it"), **changes}))


# A whole cache


def test_a_whole_cache_has_no_findings_and_is_read_whole(every: Path) -> None:
    before, seen = states(every), list[Progress]()
    verdict = verify_cache(every, report=seen.append)
    assert verdict.whole and not verdict.findings
    assert (verdict.shards_committed, verdict.shards_missing) == (3, 0)
    assert verdict.files == len(file_names(every))
    hashed = [n for n in file_names(every) if n.startswith(("arrays.zarr/", "tokens"))]
    assert verdict.bytes == sum((every / n).stat().st_size for n in hashed)
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (verdict.bytes, verdict.bytes, "bytes")
    assert repair(every, verdict.findings) == {}
    assert states(every) == before


def test_the_demo_cache_has_no_findings(demo_cache: Path) -> None:
    assert short(verify_cache(demo_cache)) == []


def test_a_cache_in_the_making_is_whole(store: Path) -> None:
    (store / "MANIFEST.json").unlink()
    for shard in (0, 2):
        (store / f"commits/{shard:06d}.json").unlink()
        for file in (store / "arrays.zarr").rglob(f"c.{shard}*"):
            if "model" not in file.parts:
                file.unlink()
    verdict = verify_cache(store)
    assert (short(verdict), verdict.shards_committed, verdict.shards_missing) == ([], 1, 2)


# Flips, cuts, deletions


def flips(size: int, draw: random.Random) -> list[int]:
    """First, last and random places."""
    return sorted({0, size - 1, *(draw.randrange(size) for _ in range(3))})


def test_every_flipped_byte_is_named_and_nothing_else(every: Path) -> None:
    draw, tried = random.Random(7), 0
    for name in file_names(every):
        path = every / name
        whole = path.read_bytes()
        for place in flips(len(whole), draw):
            path.write_bytes(flipped(whole, place, draw.randrange(1, 256)))
            assert short(verify_cache(every)) == [("damaged", name)], place
            tried += 1
        path.write_bytes(whole)
    assert tried > 300
    assert verify_cache(every).whole


@pytest.mark.parametrize(
    "document_name", ["plan.json", "MANIFEST.json", "commits/model.json", "commits/000001.json"]
)
def test_every_single_byte_of_a_document_counts(store: Path, document_name: str) -> None:
    """Every byte of the small ones, one in seven of the long ones."""
    path = store / document_name
    whole = path.read_bytes()
    for place in range(0, len(whole), 1 if len(whole) < 600 else 7):
        path.write_bytes(flipped(whole, place))
        assert findings.read_document(path)[2] is not None, place
    path.write_bytes(whole)
    assert findings.read_document(path)[2] is None


def test_every_cut_is_named_and_nothing_else(every: Path) -> None:
    for name in file_names(every):
        path = every / name
        whole = path.read_bytes()
        for length in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert short(verify_cache(every)) == [("damaged", name)], length
        path.write_bytes(whole + b"\0")
        assert short(verify_cache(every)) == [("damaged", name)]
        path.write_bytes(whole)


def test_every_deletion_is_named_and_nothing_else(every: Path) -> None:
    for name in file_names(every):
        whole = (every / name).read_bytes()
        (every / name).unlink()
        kind = "unfinished" if name == "MANIFEST.json" else "missing"
        assert short(verify_cache(every)) == [(kind, name)]
        (every / name).write_bytes(whole)


def test_swapped_files_of_two_shards_are_both_named(every: Path) -> None:
    """Same size, right checksums, wrong place."""
    one, two = (every / f"{Z}/c.{shard}.0.0" for shard in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert short(verify_cache(every)) == [("damaged", f"{Z}/c.0.0.0"), ("damaged", f"{Z}/c.1.0.0")]


def test_a_missing_folder_is_named_by_its_files(store: Path) -> None:
    shutil.rmtree(store / "arrays.zarr/rows")
    verdict = verify_cache(store)
    assert {finding.kind for finding in verdict.findings} == {"missing"}
    assert len(verdict.findings) == 3 * 3 + 3 + 1


# Edits that give right hashes


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("sites/attn.z/00", {"shape": [32, 2, 4]}),
        ("sites/attn.z/00", {"data_type": "bfloat16"}),
        ("sites/attn.z/00", {"fill_value": 0.0}),
        ("targets/logsumexp", {"data_type": "int32", "fill_value": 0}),
        ("model/W_U", {"dimension_names": ["token", "d_model"]}),
        ("stats/output", {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]}),
        ("rows", {"node_type": "array"}),
        ("", {"attributes": {"alens_format": 1, "plan": "0" * 64}}),
    ],
)  # fmt: skip
def test_metadata_that_were_edited_with_their_hashes_are_named(
    store: Path, array: str, change: dict[str, Any]
) -> None:
    key = f"{array}/zarr.json".lstrip("/")
    file, record = store / "arrays.zarr" / key, store / "commits/model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    files = document.decode(record.read_bytes(), "it")["files"]
    edit(record, files={**files, key: {"bytes": file.stat().st_size, "sha256": durable.sha256_of(file)}})
    found = only(store)
    assert (found.kind, found.path) == ("damaged", f"arrays.zarr/{key}")
    assert found.what == "does not describe the array that the plan makes"
    assert found.queue == ("commits/model.json",)


def test_metadata_in_another_form_are_the_same(store: Path) -> None:
    """Meanings are compared: another zarr may order or space its JSON in another way."""
    key = "sites/attn.z/00/zarr.json"
    file, record = store / "arrays.zarr" / key, store / "commits/model.json"
    file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    files = document.decode(record.read_bytes(), "it")["files"]
    edit(record, files={**files, key: {"bytes": file.stat().st_size, "sha256": durable.sha256_of(file)}})
    assert verify_cache(store).whole


@pytest.mark.parametrize("name", ["commits/model.json", "commits/000001.json"])
@pytest.mark.parametrize("change", ["lacks", "names more", "no object", "no size", "leads out"])
def test_a_record_names_exactly_the_files_of_the_plan(store: Path, name: str, change: str) -> None:
    record = store / name
    files = document.decode(record.read_bytes(), "it")["files"]
    first = next(iter(files))
    edited: dict[str, Any] = {
        "lacks": {k: v for k, v in files.items() if k != first},
        "names more": {**files, "sites/attn.z/09/c.1.0.0": files[first]},
        "no object": list(files),
        "no size": {**files, first: {"sha256": "0" * 64}},
        "leads out": {**files, "../tokens.npy": files[first]},
    }
    edit(record, files=edited[change])
    assert (only(store).kind, only(store).path) == ("damaged", name)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("commits/000001.json", {"plan": "0" * 64}, "is of another plan"),
        ("commits/000001.json", {"shard": 2}, "is the record of another shard"),
        ("commits/model.json", {"plan": "0" * 64}, "is of another plan"),
        ("MANIFEST.json", {"plan": "0" * 64}, "is of another plan"),
        ("MANIFEST.json", {"shards": 2}, "does not say what the plan says of shards and rows"),
        ("MANIFEST.json", {"rows": 5}, "does not say what the plan says of shards and rows"),
        ("MANIFEST.json", {"fingerprint": "0" * 64}, "its fingerprint is not that of the records"),
    ],
)
def test_documents_that_do_not_fit_each_other_are_named(
    store: Path, name: str, changes: dict[str, Any], says: str
) -> None:
    edit(store / name, **changes)
    found = only(store)
    assert (found.kind, found.path, found.what) == ("damaged", name, says)


def test_a_shard_that_was_replaced_with_its_record_breaks_the_seal(store: Path, values: Any) -> None:
    """Which shard it was cannot be told from bytes: `--deep` compares numbers."""
    plan = open_cache(store).plan
    ShardWriter(store, plan).write(1, values(plan, 5), {"note": "other numbers"})
    assert (only(store).path, only(store).what) == (
        "MANIFEST.json",
        "its fingerprint is not that of the records",
    )


def test_a_plan_of_another_format_is_refused(store: Path) -> None:
    edit(store / "plan.json", format=2)
    with pytest.raises(RequestError, match="has format 2"):
        verify_cache(store)


# Without a plan


@pytest.mark.parametrize("gone", [True, False])
def test_without_a_plan_the_rest_is_still_checked(every: Path, gone: bool) -> None:
    plan = every / "plan.json"
    plan.unlink() if gone else plan.write_bytes(plan.read_bytes()[:-9])
    kind = "missing" if gone else "damaged"
    assert short(verify_cache(every)) == [(kind, "plan.json")]
    for name in (
        f"{Z}/c.1.0.0",
        "arrays.zarr/model/b_U/c.0",
        "arrays.zarr/rows/zarr.json",
        "commits/000002.json",
    ):
        path = every / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 8]))
        assert short(verify_cache(every)) == [(kind, "plan.json"), ("damaged", name)]
        path.write_bytes(whole)
    edit(every / "commits/000001.json", plan="0" * 64)
    assert ("damaged", "commits/000001.json") in short(verify_cache(every))
    (every / "commits/000001.json").unlink()
    assert ("missing", "commits/000001.json") in short(verify_cache(every))


def test_without_plan_and_records_nothing_of_the_format_is_called_foreign(store: Path) -> None:
    (store / "plan.json").write_bytes(b"")
    for record in (store / "commits").iterdir():
        record.write_bytes(b"{}")
    (store / "MANIFEST.json").write_bytes(b"")
    found = verify_cache(store)
    assert {f.kind for f in found.findings} == {"damaged"}
    assert {f.path for f in found.findings} == {
        "plan.json", "MANIFEST.json", "commits/model.json", *(f"commits/00000{i}.json" for i in range(3)),
    }  # fmt: skip
    assert found.shards_missing is None


def test_what_a_job_left_that_died_before_its_plan_is_unfinished(store: Path) -> None:
    for name in ("plan.json", "MANIFEST.json", *(f"commits/00000{i}.json" for i in range(3))):
        (store / name).unlink()
    for file in (store / "arrays.zarr").rglob("c.*"):
        if "model" not in file.parts:
            file.unlink()
    (store / "plan.claim").write_text("{}")
    assert short(verify_cache(store)) == [("unfinished", "plan.json"), ("unfinished", "plan.claim")]
    (store / "commits/model.json").unlink()
    assert verify_cache(store).whole
    (store / "commits/000001.json").write_bytes(b"cut")  # no job writes a record before the plan
    assert short(verify_cache(store))[:2] == [("missing", "plan.json"), ("missing", "commits/model.json")]


@pytest.mark.parametrize("make", ["nothing", "empty", "a file", "lenses"])
def test_what_is_no_cache_is_refused(tmp_path: Path, make: str) -> None:
    place = tmp_path / "place"
    if make == "a file":
        place.touch()
    elif make != "nothing":
        place.mkdir()
    if make == "lenses":
        (place / "lens.json").write_text("{}")
    why = ", it holds lenses" if make == "lenses" else " (it has no plan.json)"
    with pytest.raises(RequestError, match=re.escape(f"is no cache{why}: give a directory that")):
        verify_cache(place)


# What does not belong there


def test_foreign_files_are_named_and_never_deleted(store: Path) -> None:
    paths = [
        "notes.txt", "commits/000003.json", "commits/old.json", "arrays.zarr/c.0", "arrays.zarr/rows/token/c.3",
        "arrays.zarr/rows/token/c.0.0", "arrays.zarr/rows/token/zarr.json.bak", "tokens.npy~", "arrays.zarr/model/W_U/c.1.0",
    ]  # fmt: skip
    for path in paths:
        (store / path).write_bytes(b"mine")
    for folder in ("mine", "arrays.zarr/sites/mlp", "commits/empty", "mine.partial"):
        (store / folder).mkdir()
    (store / "mine/deep.txt").touch()
    (store / "mine/.x.partial").touch()
    os.utime(store / "mine/.x.partial", (0, 0))
    folders = ["mine", "arrays.zarr/sites/mlp", "commits/empty", "mine.partial"]
    before, verdict = states(store), verify_cache(store)
    assert sorted(short(verdict)) == sorted(("foreign", path) for path in (*paths, *folders))
    assert verdict.whole
    assert repair(store, verdict.findings) == {}
    assert states(store) == before


def test_names_that_no_terminal_shows_are_escaped(store: Path) -> None:
    (store / "a\nb").touch()
    Path(os.fsdecode(os.fsencode(store) + b"/\xff.txt")).touch()
    (store / "größe").touch()
    assert [f.path for f in verify_cache(store).findings] == ["a\\nb", "größe", "\\udcff.txt"]


def test_files_of_a_shard_without_a_record_are_unfinished(store: Path, values: Any) -> None:
    (store / "MANIFEST.json").unlink()
    (store / "commits/000001.json").unlink()
    before, verdict = states(store), verify_cache(store)
    assert short(verdict) == [("unfinished", "commits/000001.json")]
    num_files = len(shard_arrays(open_cache(store).plan))
    assert verdict.findings[0].what == f"shard 1 is not committed, {num_files} files of it are there"
    assert (verdict.whole, verdict.shards_missing) == (True, 1)
    assert repair(store, verdict.findings) == {} and states(store) == before


def test_partial_files_are_removed_when_they_are_old(store: Path) -> None:
    old, young = (
        store / "arrays.zarr/rows/token/.c.0.h-1-a.partial",
        store / "commits/.000001.json.h-2-b.partial",
    )
    for file in (old, young):
        file.write_bytes(b"cut")
    os.utime(old, (time.time() - foreign.OLD_S - 5,) * 2)
    os.utime(young, (time.time() - foreign.OLD_S / 2,) * 2)
    verdict = verify_cache(store)
    assert sorted(short(verdict)) == sorted(
        ("unfinished", p.relative_to(store).as_posix()) for p in (old, young)
    )
    assert repair(store, verdict.findings) == {old.relative_to(store).as_posix(): None}
    assert young.exists() and not old.exists()


def test_links_are_named_and_what_they_lead_to_is_checked(store: Path, tmp_path: Path) -> None:
    file, elsewhere = store / f"{Z}/c.1.0.0", tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert short(verify_cache(store)) == [("foreign", f"{Z}/c.1.0.0")]
    elsewhere.write_bytes(elsewhere.read_bytes()[:-1] + b"?")
    assert short(verify_cache(store)) == [("damaged", f"{Z}/c.1.0.0"), ("foreign", f"{Z}/c.1.0.0")]
    elsewhere.unlink()
    assert short(verify_cache(store)) == [("missing", f"{Z}/c.1.0.0"), ("foreign", f"{Z}/c.1.0.0")]
    file.unlink()
    file.symlink_to(file)  # leads to itself
    assert short(verify_cache(store)) == [("damaged", f"{Z}/c.1.0.0"), ("foreign", f"{Z}/c.1.0.0")]


def test_a_link_that_leads_round_in_circles_ends(store: Path) -> None:
    (store / "again").symlink_to(store)
    (store / "arrays.zarr/loop").symlink_to(store / "arrays.zarr")
    assert short(verify_cache(store)) == [("foreign", "again"), ("foreign", "arrays.zarr/loop")]


@pytest.mark.parametrize(
    "name", ["plan.json", "tokens.npy", "MANIFEST.json", "commits/model.json", "commits/000001.json", f"{Z}/c.1.0.0", f"{Z}/zarr.json"]
)  # fmt: skip
@pytest.mark.parametrize("what", ["directory", "pipe"])
def test_no_file_where_one_belongs(store: Path, name: str, what: str) -> None:
    (store / name).unlink()
    (store / name).mkdir() if what == "directory" else os.mkfifo(store / name)
    verdict = verify_cache(store)
    assert short(verdict) == [("damaged", name)]
    assert repair(store, verdict.findings) == {}
    assert "move it away" in verdict.findings[0].mend


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Paths (by their end) that the system refuses to open, with the error number: root may read everything."""
    refused: dict[str, int] = {}
    opened = Path.open

    def open_(self: Path, *args: Any, **kwargs: Any) -> Any:
        for end, number in refused.items():
            if str(self).endswith(end):
                raise OSError(number, os.strerror(number), str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_)
    return refused


@pytest.mark.parametrize(
    "name", ["plan.json", "tokens.npy", "MANIFEST.json", "commits/model.json", "commits/000001.json", f"{Z}/c.1.0.0"]
)  # fmt: skip
def test_what_may_not_be_read_is_named_and_left_alone(
    store: Path, refusing: dict[str, int], name: str
) -> None:
    refusing[name] = errno.EACCES
    before, verdict = states(store), verify_cache(store)
    assert short(verdict) == [("damaged", name)]
    assert verdict.findings[0].what == "cannot be read (Permission denied)"
    assert repair(store, verdict.findings) == {} and states(store) == before


def test_nothing_may_be_read(store: Path, refusing: dict[str, int]) -> None:
    refusing[""] = errno.EACCES
    before, verdict = states(store), verify_cache(store)
    assert not verdict.whole
    assert {f.what for f in verdict.findings} == {"cannot be read (Permission denied)"}
    assert repair(store, verdict.findings) == {} and states(store) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("folder", ["commits", "arrays.zarr", "."])
def test_a_folder_that_may_not_be_entered(store: Path, folder: str) -> None:
    before = states(store)
    (store / folder).chmod(0)
    try:
        if folder == ".":
            with pytest.raises(RequestError):
                verify_cache(store)
        else:
            verdict = verify_cache(store)
            assert not verdict.whole
            assert repair(store, verdict.findings) == {}
    finally:
        (store / folder).chmod(0o755)
    assert states(store) == before


def test_bytes_that_the_disk_lost_are_queued(store: Path, refusing: dict[str, int]) -> None:
    refusing[f"{Z}/c.1.0.0"] = errno.EIO
    assert only(store).queue == ("MANIFEST.json", "commits/000001.json")


# Repair


QUEUED = {
    "plan.json": ["plan.json"],
    "tokens.npy": ["tokens.npy"],
    "MANIFEST.json": ["MANIFEST.json"],
    "commits/model.json": ["commits/model.json"],
    "commits/000001.json": ["MANIFEST.json", "commits/000001.json"],
    f"{Z}/c.1.0.0": ["MANIFEST.json", "commits/000001.json"],
    "arrays.zarr/stats/output/c.2.0": ["MANIFEST.json", "commits/000002.json"],
    f"{Z}/zarr.json": ["commits/model.json"],
    "arrays.zarr/model/W_U/c.0.0": ["commits/model.json"],
}


@pytest.mark.parametrize("name", QUEUED)
@pytest.mark.parametrize("gone", [True, False])
def test_repair_moves_what_makes_it_count_and_nothing_else(store: Path, name: str, gone: bool) -> None:
    path = store / name
    path.unlink() if gone else path.write_bytes(path.read_bytes()[:-1])
    before, expected = states(store), [n for n in QUEUED[name] if not gone or n != name]
    if gone and name == "MANIFEST.json":
        expected = []
    assert list(repair(store, verify_cache(store).findings)) == expected
    moved = {f"aside/1/{n}" if n in expected else n: state for n, state in before.items()}
    assert states(store) == moved  # moved, byte for byte
    assert repair(store, verify_cache(store).findings) == {}


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "swap"])
def test_a_queued_shard_is_written_anew_and_only_that(
    every: Path, wholes: dict[str, Path], values: Any, damage: str
) -> None:
    whole, before, plan = contents(every), states(every), open_cache(every).plan
    file, other = every / f"{Z}/c.1.0.0", every / f"{Z}/c.2.0.0"
    shards = {1, 2} if damage == "swap" else {1}
    match damage:
        case "flip":
            flip(file, -1)
        case "cut":
            file.write_bytes(b"")
        case "delete":
            file.unlink()
        case "swap":
            one, two = file.read_bytes(), other.read_bytes()
            file.write_bytes(two), other.write_bytes(one)
    queued = {f"commits/{shard:06d}.json" for shard in shards} | {"MANIFEST.json"}
    assert set(repair(every, verify_cache(every).findings)) == queued
    missing = set(range(3)) - set(open_cache(every).shards)
    assert missing == shards
    assert verify_cache(every).whole
    for shard in sorted(missing):
        write(every, plan, values, shard)
    put_manifest(every, plan, open_cache(every).files_by_shard())
    shutil.rmtree(every / "aside")  # no part of the cache: verify names nothing in it
    assert contents(every) == whole
    assert verify_cache(every).findings == ()
    rewritten = {n for n, state in states(every).items() if state != before[n]}
    assert rewritten == queued | {
        f"arrays.zarr/{key}" for shard in shards for key in foreign.shard_keys(all_arrays(plan), shard)
    }


def test_a_disk_that_refuses_is_one_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / f"{Z}/c.1.0.0").unlink()

    def refuse(path: str, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(RunError, match=r"^cannot write .*MANIFEST.json: Read-only file system; [^\n]*$"):
        repair(store, verify_cache(store).findings)


def test_each_repair_has_a_folder_aside_of_its_own(store: Path) -> None:
    plan, record = (store / "plan.json").read_bytes(), store / "commits/000001.json"
    for number in (1, 2):
        record.write_bytes(f"damaged, time {number}".encode())
        assert (
            repair(store, verify_cache(store).findings)["commits/000001.json"]
            == f"aside/{number}/commits/000001.json"
        )
        assert (store / f"aside/{number}/commits/000001.json").read_text() == f"damaged, time {number}"
    assert verify_cache(store).whole and (store / "plan.json").read_bytes() == plan


# Links, at every level: what they lead to may be another's

LINKED = ["commits", "commits/000001.json", "arrays.zarr", "arrays.zarr/sites", Z, f"{Z}/c.1.0.0", "arrays.zarr/model",
          "arrays.zarr/model/W_U", "MANIFEST.json", "tokens.npy", "plan.json"]  # fmt: skip


@pytest.mark.parametrize("place", LINKED)
def test_nothing_is_moved_or_removed_behind_a_link(
    store: Path, wholes: dict[str, Path], copy_of: Callable[[Path], Path], place: str
) -> None:
    """Every path of the store in turn is a link to that of another cache, which has old leftovers of its own."""
    other = copy_of(wholes["keep_bits"])
    leftover = other / "commits/.000001.json.h-1-a.partial"
    leftover.touch()
    os.utime(leftover, (0, 0))
    shutil.rmtree(store / place) if (store / place).is_dir() else (store / place).unlink()
    (store / place).symlink_to(other / place)
    before, verdict = contents(other), verify_cache(store)
    went = repair(store, verdict.findings)
    assert contents(other) == before
    assert all(to is not None and to.startswith("aside/1/") for to in went.values())
    assert not any(path.startswith(f"{place}/") for path in went)
    behind = [
        finding for finding in verdict.findings if finding.path.startswith("commits/") and finding.fails
    ]
    if place == "commits":
        mend = "commits is a link, and --repair changes nothing behind one: put a directory in its place"
        assert behind and all((finding.mend, finding.queue) == (mend, ()) for finding in behind)


@pytest.mark.parametrize("place", ["commits", "arrays.zarr", "arrays.zarr/sites", Z])
def test_nothing_is_written_behind_a_link(
    store: Path, wholes: dict[str, Path], copy_of: Callable[[Path], Path], place: str, tiny_weights: Any
) -> None:
    other, plan = copy_of(wholes["int8"]), open_cache(store).plan
    shutil.rmtree(store / place)
    (store / place).symlink_to(other / place)
    before = contents(other)
    for write_something in (
        lambda: ShardWriter(store, plan),
        lambda: put_skeleton(store, plan, tiny_weights),
    ):
        with pytest.raises(RequestError, match=f"{place} is a link to .* put a directory in its place"):
            write_something()
    assert contents(other) == before


def test_a_linked_aside_is_not_written_to(store: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (store / "aside").symlink_to(mine)
    (store / "tokens.npy").write_bytes(b"")
    assert ("foreign", "aside") in short(verify_cache(store))
    with pytest.raises(RunError, match=r"^cannot write aside: "):
        repair(store, verify_cache(store).findings)
    assert list(mine.iterdir()) == [] and (store / "tokens.npy").exists()


def test_a_folder_that_becomes_a_link_after_the_check_is_not_followed(
    store: Path, wholes: dict[str, Path], copy_of: Callable[[Path], Path]
) -> None:
    """Between verify and repair."""
    other = copy_of(wholes["keep_bits"])
    (store / "commits/000001.json").write_bytes(b"")
    found = verify_cache(store).findings
    shutil.rmtree(store / "commits")
    (store / "commits").symlink_to(other / "commits")
    before = contents(other)
    assert list(repair(store, found)) == ["MANIFEST.json"]
    assert contents(other) == before


def test_a_store_that_is_a_link_itself_is_repaired(store: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(store)
    (store / "commits/000001.json").write_bytes(b"")
    assert (
        list(repair(tmp_path / "named", verify_cache(tmp_path / "named").findings))
        == QUEUED["commits/000001.json"]
    )


# While others work


def test_a_shard_that_is_rewritten_meanwhile_is_no_damage(
    store: Path, values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record was there when records were read, and went before the file was looked at."""
    looked = findings.look

    def look(path: Path, recorded: Any) -> Any:
        if path.name == "c.1.0.0":
            (store / "commits/000001.json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return looked(path, recorded)

    monkeypatch.setattr("alens.store.hashing.look", look)
    assert short(verify_cache(store)) == []


def test_it_can_be_stopped(store: Path) -> None:
    with pytest.raises(StoppedError, match=r"stopped; 0 of [\d,]+ bytes of .* were read"):
        verify_cache(store, should_stop=lambda: True)


def test_what_was_found_is_told_at_once(store: Path) -> None:
    (store / "MANIFEST.json").write_bytes(b"")
    told: list[Finding] = []
    with pytest.raises(StoppedError):
        verify_cache(store, found=told.append, should_stop=lambda: True)
    assert [finding.path for finding in told] == ["MANIFEST.json"]


def test_keys_of_the_plan_are_those_that_were_written(every: Path) -> None:
    plan = open_cache(every).plan
    written = {n.removeprefix("arrays.zarr/") for n in file_names(every) if n.startswith("arrays.zarr/")}
    shards = {key for shard in range(3) for key in foreign.shard_keys(all_arrays(plan), shard)}
    assert foreign.skeleton_keys(all_arrays(plan)) | shards == written
    assert len(weight_arrays(plan)) == 3
