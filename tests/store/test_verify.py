"""Damage of every kind, in every kind of file of a whole cache: each is named, and nothing else."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from alens.errors import StoppedError
from alens.job.progress import Progress
from alens.store import findings
from alens.store.findings import Finding
from alens.store.repair import repair
from alens.store.verify import verify_cache

from ..damage import flipped
from ..folders import file_names, states
from .whole_caches import Z, short


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


def test_a_cache_in_the_making_is_whole(whole_store: Path) -> None:
    (whole_store / "MANIFEST.json").unlink()
    for shard in (0, 2):
        (whole_store / f"commits/{shard:06d}.json").unlink()
        for file in (whole_store / "arrays.zarr").rglob(f"c.{shard}*"):
            if "model" not in file.parts:
                file.unlink()
    verdict = verify_cache(whole_store)
    assert (short(verdict), verdict.shards_committed, verdict.shards_missing) == ([], 1, 2)


# Flips, cuts, deletions


def flips(size: int, draw: random.Random) -> list[int]:
    """The first, the last and random places in a file."""
    return sorted({0, size - 1, *(draw.randrange(size) for _ in range(3))})


def test_every_flipped_byte_is_named_and_nothing_else(every_harmed: Path) -> None:
    draw, tried = random.Random(7), 0
    for name in file_names(every_harmed):
        path = every_harmed / name
        whole = path.read_bytes()
        for place in flips(len(whole), draw):
            path.write_bytes(flipped(whole, place, draw.randrange(1, 256)))
            assert short(verify_cache(every_harmed)) == [("damaged", name)], place
            tried += 1
        path.write_bytes(whole)
    assert tried > 300
    assert verify_cache(every_harmed).whole


@pytest.mark.parametrize(
    "document_name", ["plan.json", "MANIFEST.json", "commits/model.json", "commits/000001.json"]
)
def test_every_single_byte_of_a_document_counts(whole_store: Path, document_name: str) -> None:
    """Every byte of small documents, one in seven of long ones."""
    path = whole_store / document_name
    whole = path.read_bytes()
    for place in range(0, len(whole), 1 if len(whole) < 600 else 7):
        path.write_bytes(flipped(whole, place))
        assert findings.read_document(path)[2] is not None, place
    path.write_bytes(whole)
    assert findings.read_document(path)[2] is None


def test_every_cut_is_named_and_nothing_else(every_harmed: Path) -> None:
    for name in file_names(every_harmed):
        path = every_harmed / name
        whole = path.read_bytes()
        for length in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert short(verify_cache(every_harmed)) == [("damaged", name)], length
        path.write_bytes(whole + b"\0")
        assert short(verify_cache(every_harmed)) == [("damaged", name)]
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


def test_a_missing_folder_is_named_by_its_files(whole_store: Path) -> None:
    shutil.rmtree(whole_store / "arrays.zarr/rows")
    verdict = verify_cache(whole_store)
    assert {finding.kind for finding in verdict.findings} == {"missing"}
    assert len(verdict.findings) == 3 * 3 + 3 + 1


# While others work


def test_a_shard_that_is_rewritten_meanwhile_is_no_damage(
    whole_store: Path, values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record was there when records were read, and was gone before the file was looked at."""
    looked = findings.look

    def look(path: Path, recorded: Any) -> Any:
        if path.name == "c.1.0.0":
            (whole_store / "commits/000001.json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return looked(path, recorded)

    monkeypatch.setattr("alens.store.hashing.look", look)
    assert short(verify_cache(whole_store)) == []


def test_it_can_be_stopped(whole_store: Path) -> None:
    with pytest.raises(StoppedError, match=r"stopped; 0 of [\d,]+ bytes of .* were read"):
        verify_cache(whole_store, should_stop=lambda: True)


def test_what_was_found_is_told_at_once(whole_store: Path) -> None:
    (whole_store / "MANIFEST.json").write_bytes(b"")
    told: list[Finding] = []
    with pytest.raises(StoppedError):
        verify_cache(whole_store, on_finding=told.append, should_stop=lambda: True)
    assert [finding.path for finding in told] == ["MANIFEST.json"]
