"""Links in a cache, at every level: another cache may lie behind them, so nothing there is moved or written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.errors import RequestError, RunError
from alens.store.cache_reader import open_cache
from alens.store.repair import repair
from alens.store.verify import verify_cache
from alens.store.writer import ShardWriter, put_skeleton

from ..folders import contents
from .whole_caches import QUEUED, Z, short

LINKED = ["commits", "commits/000001.json", "arrays.zarr", "arrays.zarr/sites", Z, f"{Z}/c.1.0.0", "arrays.zarr/model",
          "arrays.zarr/model/W_U", "MANIFEST.json", "tokens.npy", "plan.json"]  # fmt: skip


@pytest.mark.parametrize("place", LINKED)
def test_nothing_is_moved_or_removed_behind_a_link(
    whole_store: Path, wholes: dict[str, Path], copy_of: Callable[[Path], Path], place: str
) -> None:
    """Every path of the cache in turn is a link to that of another cache, which has old leftovers of its own."""
    other = copy_of(wholes["keep_bits"])
    leftover = other / "commits/.000001.json.h-1-a.partial"
    leftover.touch()
    os.utime(leftover, (0, 0))
    shutil.rmtree(whole_store / place) if (whole_store / place).is_dir() else (whole_store / place).unlink()
    (whole_store / place).symlink_to(other / place)
    before, verdict = contents(other), verify_cache(whole_store)
    went = repair(whole_store, verdict.findings)
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
    whole_store: Path, wholes: dict[str, Path], copy_of: Callable[[Path], Path], place: str, tiny_weights: Any
) -> None:
    other, plan = copy_of(wholes["int8"]), open_cache(whole_store).plan
    shutil.rmtree(whole_store / place)
    (whole_store / place).symlink_to(other / place)
    before = contents(other)
    for write_something in (
        lambda: ShardWriter(whole_store, plan),
        lambda: put_skeleton(whole_store, plan, tiny_weights),
    ):
        with pytest.raises(RequestError, match=f"{place} is a link to .* put a directory in its place"):
            write_something()
    assert contents(other) == before


def test_a_linked_aside_is_not_written_to(whole_store: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (whole_store / "aside").symlink_to(mine)
    (whole_store / "tokens.npy").write_bytes(b"")
    assert ("foreign", "aside") in short(verify_cache(whole_store))
    with pytest.raises(RunError, match=r"^cannot write aside: "):
        repair(whole_store, verify_cache(whole_store).findings)
    assert list(mine.iterdir()) == [] and (whole_store / "tokens.npy").exists()


def test_a_folder_that_becomes_a_link_after_the_check_is_not_followed(
    whole_store: Path, wholes: dict[str, Path], copy_of: Callable[[Path], Path]
) -> None:
    """It happens between verify and repair."""
    other = copy_of(wholes["keep_bits"])
    (whole_store / "commits/000001.json").write_bytes(b"")
    findings = verify_cache(whole_store).findings
    shutil.rmtree(whole_store / "commits")
    (whole_store / "commits").symlink_to(other / "commits")
    before = contents(other)
    assert list(repair(whole_store, findings)) == ["MANIFEST.json"]
    assert contents(other) == before


def test_a_store_that_is_a_link_itself_is_repaired(whole_store: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(whole_store)
    (whole_store / "commits/000001.json").write_bytes(b"")
    assert (
        list(repair(tmp_path / "named", verify_cache(tmp_path / "named").findings))
        == QUEUED["commits/000001.json"]
    )
