"""Files that do not belong to a cache are named and stay where they are."""

import os
import time
from pathlib import Path
from typing import Any

from alens.store import foreign
from alens.store.arrays import all_arrays, shard_arrays, weight_arrays
from alens.store.cache_reader import open_cache
from alens.store.repair import repair
from alens.store.verify import verify_cache

from ..folders import file_names, states
from .whole_caches import Z, short


def test_foreign_files_are_named_and_never_deleted(whole_store: Path) -> None:
    paths = [
        "notes.txt", "commits/000003.json", "commits/old.json", "arrays.zarr/c.0", "arrays.zarr/rows/token/c.3",
        "arrays.zarr/rows/token/c.0.0", "arrays.zarr/rows/token/zarr.json.bak", "tokens.npy~", "arrays.zarr/model/W_U/c.1.0",
    ]  # fmt: skip
    for path in paths:
        (whole_store / path).write_bytes(b"mine")
    for folder in ("mine", "arrays.zarr/sites/mlp", "commits/empty", "mine.partial"):
        (whole_store / folder).mkdir()
    (whole_store / "mine/deep.txt").touch()
    (whole_store / "mine/.x.partial").touch()
    os.utime(whole_store / "mine/.x.partial", (0, 0))
    folders = ["mine", "arrays.zarr/sites/mlp", "commits/empty", "mine.partial"]
    before, verdict = states(whole_store), verify_cache(whole_store)
    assert sorted(short(verdict)) == sorted(("foreign", path) for path in (*paths, *folders))
    assert verdict.whole
    assert repair(whole_store, verdict.findings) == {}
    assert states(whole_store) == before


def test_names_that_no_terminal_shows_are_escaped(whole_store: Path) -> None:
    (whole_store / "a\nb").touch()
    Path(os.fsdecode(os.fsencode(whole_store) + b"/\xff.txt")).touch()
    (whole_store / "größe").touch()
    assert [f.path for f in verify_cache(whole_store).findings] == ["a\\nb", "größe", "\\udcff.txt"]


def test_files_of_a_shard_without_a_record_are_unfinished(whole_store: Path, values: Any) -> None:
    (whole_store / "MANIFEST.json").unlink()
    (whole_store / "commits/000001.json").unlink()
    before, verdict = states(whole_store), verify_cache(whole_store)
    assert short(verdict) == [("unfinished", "commits/000001.json")]
    num_files = len(shard_arrays(open_cache(whole_store).plan))
    assert verdict.findings[0].what == f"shard 1 is not committed, {num_files} files of it are there"
    assert (verdict.whole, verdict.shards_missing) == (True, 1)
    assert repair(whole_store, verdict.findings) == {} and states(whole_store) == before


def test_partial_files_are_removed_when_they_are_old(whole_store: Path) -> None:
    old, young = (
        whole_store / "arrays.zarr/rows/token/.c.0.h-1-a.partial",
        whole_store / "commits/.000001.json.h-2-b.partial",
    )
    for file in (old, young):
        file.write_bytes(b"cut")
    os.utime(old, (time.time() - foreign.OLD_S - 5,) * 2)
    os.utime(young, (time.time() - foreign.OLD_S / 2,) * 2)
    verdict = verify_cache(whole_store)
    assert sorted(short(verdict)) == sorted(
        ("unfinished", p.relative_to(whole_store).as_posix()) for p in (old, young)
    )
    assert repair(whole_store, verdict.findings) == {old.relative_to(whole_store).as_posix(): None}
    assert young.exists() and not old.exists()


def test_links_are_named_and_what_they_lead_to_is_checked(whole_store: Path, tmp_path: Path) -> None:
    file, elsewhere = whole_store / f"{Z}/c.1.0.0", tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert short(verify_cache(whole_store)) == [("foreign", f"{Z}/c.1.0.0")]
    elsewhere.write_bytes(elsewhere.read_bytes()[:-1] + b"?")
    assert short(verify_cache(whole_store)) == [("damaged", f"{Z}/c.1.0.0"), ("foreign", f"{Z}/c.1.0.0")]
    elsewhere.unlink()
    assert short(verify_cache(whole_store)) == [("missing", f"{Z}/c.1.0.0"), ("foreign", f"{Z}/c.1.0.0")]
    file.unlink()
    file.symlink_to(file)  # leads to itself
    assert short(verify_cache(whole_store)) == [("damaged", f"{Z}/c.1.0.0"), ("foreign", f"{Z}/c.1.0.0")]


def test_a_link_that_leads_round_in_circles_ends(whole_store: Path) -> None:
    (whole_store / "again").symlink_to(whole_store)
    (whole_store / "arrays.zarr/loop").symlink_to(whole_store / "arrays.zarr")
    assert short(verify_cache(whole_store)) == [("foreign", "again"), ("foreign", "arrays.zarr/loop")]


def test_keys_of_the_plan_are_those_that_were_written(every: Path) -> None:
    plan = open_cache(every).plan
    written = {n.removeprefix("arrays.zarr/") for n in file_names(every) if n.startswith("arrays.zarr/")}
    shards = {key for shard in range(3) for key in foreign.shard_keys(all_arrays(plan), shard)}
    assert foreign.skeleton_keys(all_arrays(plan)) | shards == written
    assert len(weight_arrays(plan)) == 3
