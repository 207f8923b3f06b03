import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import open_cache
from alens.errors import AlensError, DamageError, RequestError, RunError
from alens.store.arrays import all_arrays
from alens.store.cache_reader import Cache
from alens.store.effect_reader import EffectStore
from alens.store.stage import Stage
from alens.store.stage_settings import StageSettings
from alens.store.stage_space import WHOLE

from ..damage import flip
from ..object_servers import FaultyServer, S3Server, faulty_server

Z = "sites/attn.z/00"
READ = """\
import sys
from alens import open_cache
cache = open_cache(sys.argv[1])
for shard in cache.shards:
    cache.read_shard("sites/attn.z/00", shard)
print(cache.stage.root)
"""


def everything(cache: Cache) -> Iterator[tuple[str, Any]]:
    for name, spec in all_arrays(cache.plan).items():
        if spec.is_weight:
            yield name, cache.weights(name.removeprefix("model/"))
        else:
            yield name, cache.read(name, slice(None))
    yield "tokens", cache.tokens


def assert_same(one: Cache, other: Cache) -> None:
    assert one.fingerprint == other.fingerprint and one.shards == other.shards
    for (name, values), (_, others) in zip(everything(one), everything(other), strict=True):
        assert values.dtype == others.dtype and values.tobytes() == others.tobytes(), name


def arrays_read(server: FaultyServer) -> list[str]:
    return [path for path in server.requests if "/c." in path]


def line(error: type[AlensError], cache: Cache) -> str:
    with pytest.raises(error) as refused:
        cache.read_shard(Z, 2)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def stage_of(cache: Cache) -> Stage:
    assert cache.stage is not None
    return cache.stage


def test_every_number_is_that_of_the_cache_itself(far: str, near: Path, faulty: FaultyServer) -> None:
    assert_same(open_cache(far), open_cache(near))
    read = arrays_read(faulty)
    assert len(read) == len(set(read))
    faulty.requests.clear()
    assert_same(open_cache(Path(far)), open_cache(near))
    assert sorted(path.rpartition("/")[2] for path in faulty.requests) == [
        *["MANIFEST.json"] * 2,
        "model.json",
        *["plan.json"] * 2,
    ]


def test_messages_name_the_address(far: str) -> None:
    cache = open_cache(far)
    assert cache.root == far and repr(cache).startswith(f"<Cache {far}: 96 rows")
    with pytest.raises(RequestError, match=rf"^{far} has no array nothing"):
        cache.read("nothing", slice(None))
    with pytest.raises(RequestError, match=rf"^{far}/no is not a cache \(it has no plan.json\)"):
        open_cache(f"{far}/no")


@pytest.mark.parametrize("fault", ["503", "close", "cut", "stall", "flip"])
def test_what_fails_once_is_read_again(far: str, near: Path, faulty: FaultyServer, fault: Any) -> None:
    cache = open_cache(far)
    faulty.fail(fault, f"{Z}/c.2", times=1)
    assert cache.read_shard(Z, 2).tobytes() == open_cache(near).read_shard(Z, 2).tobytes()
    assert len(arrays_read(faulty)) == 2


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("flip", " is not the file that was committed: its SHA-256 is another"),
        ("short", " has 268 bytes, not the 536 that were committed"),
        ("404", " is missing: "),
    ],
)
def test_a_damaged_object_is_named_and_not_kept(
    far: str, faulty: FaultyServer, fault: Any, says: str
) -> None:
    cache = open_cache(far)
    faulty.fail(fault, f"{Z}/c.2")
    assert line(DamageError, cache).startswith(f"{far}/arrays.zarr/{Z}/c.2.0.0{says}")
    assert not list(stage_of(cache).root.rglob("*c.2.0.0*"))
    faulty.heal()
    cache.read_shard(Z, 2)


@pytest.mark.parametrize("name", ["plan.json", f"{Z}/zarr.json"])
@pytest.mark.parametrize("fault", ["flip", "short"])
def test_a_damaged_document_is_named(far: str, faulty: FaultyServer, name: str, fault: Any) -> None:
    faulty.fail(fault, name)
    with pytest.raises(DamageError, match=rf"^{far}/.*{name} "):
        open_cache(far)


def test_a_server_that_fails_to_the_end_gives_one_line(far: str, faulty: FaultyServer) -> None:
    cache = open_cache(far)
    faulty.fail("503", "/c.2")
    assert line(RunError, cache).startswith(
        f"cannot read {far}/arrays.zarr/{Z}/c.2.0.0: the server answers 503 Service Unavailable, 3 tries in 0 s;"
    )


def test_a_file_without_its_marker_is_not_believed(far: str, near: Path) -> None:
    cache = open_cache(far)
    file = stage_of(cache).root / f"arrays.zarr/{Z}/c.2.0.0"
    file.write_bytes(bytes((near / f"arrays.zarr/{Z}/c.2.0.0").stat().st_size))
    cache.read(Z, slice(64, 66))  # too few rows for a comparison of hashes
    assert file.read_bytes() == (near / f"arrays.zarr/{Z}/c.2.0.0").read_bytes()


@pytest.mark.slow  # a process, which loads what reading needs
def test_a_process_that_is_killed_leaves_nothing_that_is_believed(
    far: str, near: Path, faulty: FaultyServer, tmp_path: Path
) -> None:
    faulty.fail("stall", f"{Z}/c.1")
    process = subprocess.Popen([sys.executable, "-c", READ, far], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list((tmp_path / "stage").rglob(".c.1*.partial")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "stage").rglob("c.0.0.0")) and not list((tmp_path / "stage").rglob("c.1.0.0"))
    faulty.heal()
    assert_same(open_cache(far), open_cache(near))
    assert not list((tmp_path / "stage").rglob("*.partial"))


@pytest.mark.slow  # two processes, which load what reading needs
def test_two_processes_share_a_stage(far: str, faulty: FaultyServer) -> None:
    with ThreadPoolExecutor(2) as pool:
        command = [sys.executable, "-c", READ, far]
        runs = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(2)))
    assert runs[0].stdout == runs[1].stdout != "" and not runs[0].returncode
    read = arrays_read(faulty)
    assert len(read) == len(set(read)) == 3


def test_threads_copy_a_file_once(far: str, faulty: FaultyServer) -> None:
    cache = open_cache(far)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cache.read_shard(Z, 0), range(4)))
    assert len(arrays_read(faulty)) == 1


def test_a_copy_that_was_damaged_here_is_made_anew(far: str, near: Path) -> None:
    file = stage_of(open_cache(far)).root / f"arrays.zarr/{Z}/c.2.0.0"
    for damage in (flip, lambda path: path.write_bytes(b""), Path.unlink):
        open_cache(far).read_shard(Z, 2)
        damage(file)
        assert open_cache(far).read_shard(Z, 2).tobytes() == open_cache(near).read_shard(Z, 2).tobytes()
    tokens = stage_of(open_cache(far)).root / "tokens.npy"
    open_cache(far).tokens.sum()
    flip(tokens)
    assert np.array_equal(open_cache(far).tokens, open_cache(near).tokens)


def copied_bytes(place: Path) -> int:
    markers = [path for path in place.rglob(f"*{WHOLE}") if not path.name.startswith("zarr.json")]
    return sum(path.with_suffix("").stat().st_size for path in markers)


def copies(cache: Cache) -> list[str]:
    return sorted(path.name for path in (stage_of(cache).root / "arrays.zarr" / Z).glob("c.*.0"))


def test_the_least_recently_read_copies_go(far: str, near: Path, tmp_path: Path) -> None:
    size = (near / f"arrays.zarr/{Z}/c.0.0.0").stat().st_size
    settings = StageSettings(stage=tmp_path / "small", stage_gib=2.5 * size / 2**30)
    cache = open_cache(far, settings)
    for shard in range(2):
        cache.read_shard(Z, shard)
        os.utime(stage_of(cache).root / f"arrays.zarr/{Z}/c.{shard}.0.0{WHOLE}", (shard, shard))
    cache.read_shard(Z, 0)  # read again: shard 1 is now the one that was read longest ago
    cache.read_shard(Z, 2)
    assert copies(cache) == ["c.0.0.0", "c.2.0.0"]
    assert_same(cache, open_cache(near))
    largest = max(path.stat().st_size for path in (near / "arrays.zarr").rglob("c.*"))
    assert copied_bytes(tmp_path / "small") <= max(2.5 * size, largest)


def test_a_copy_in_use_is_not_dropped(far: str, near: Path, tmp_path: Path) -> None:
    cache = open_cache(far, StageSettings(stage=tmp_path / "small", stage_gib=1e-9))
    stage, key = stage_of(cache), f"arrays.zarr/{Z}/c.0.0.0"
    with stage.using(key, cache.files_by_shard()[0][f"{Z}/c.0.0.0"]):
        cache.read_shard(Z, 1)
        cache.read_shard(Z, 2)
        assert copies(cache) == ["c.0.0.0", "c.2.0.0"]
    cache.read_shard(Z, 1)
    assert copies(cache) == ["c.1.0.0"]


def test_a_directory_is_copied_where_a_stage_is_named(near: Path, tmp_path: Path, copy_of: Any) -> None:
    store = copy_of(near)
    settings = StageSettings(stage=tmp_path / "here")
    cache = open_cache(store, settings)
    assert_same(cache, open_cache(near))
    assert cache.root == store and stage_of(cache).root.parent == tmp_path / "here"
    flip(store / f"arrays.zarr/{Z}/c.2.0.0")
    open_cache(store, settings).read_shard(Z, 2)  # the copy is whole
    elsewhere = open_cache(store, StageSettings(stage=tmp_path / "there"))
    assert line(DamageError, elsewhere).startswith(f"{store}/arrays.zarr/{Z}/c.2.0.0 is not the file")


def test_a_cache_that_was_made_anew_has_other_copies(near: Path, tmp_path: Path, copy_of: Any) -> None:
    store, settings = copy_of(near), StageSettings(stage=tmp_path / "here")
    first = open_cache(store, settings)
    first.read_shard(Z, 2)
    (store / "MANIFEST.json").unlink()
    second = open_cache(store, settings)
    assert not second.sealed and second.shards == first.shards
    assert stage_of(second).root != stage_of(first).root


def test_a_cache_in_the_making_is_read_where_it_can_be_listed(
    near: Path, copy_of: Any, s3: S3Server, impatient: None
) -> None:
    store = copy_of(near)
    (store / "MANIFEST.json").unlink()
    (store / "commits/000001.json").unlink()
    cache = open_cache(s3.upload(store))
    assert cache.shards == (0, 2)
    cache.read_shard(Z, 2)
    with pytest.raises(DamageError, match=f"^shard 1 of {cache.root} is not committed"):
        cache.read_shard(Z, 1)
    with (
        faulty_server(store) as server,
        pytest.raises(RequestError, match="not sealed, and what it holds cannot"),
    ):
        open_cache(server.endpoint).shards  # noqa: B018  # the property reads


@pytest.mark.slow  # every file is asked for
def test_a_directory_is_read_over_http(near: Path, impatient: None) -> None:
    with faulty_server(near) as server:
        assert_same(open_cache(server.endpoint), open_cache(near))


@pytest.mark.slow  # effects are measured first
def test_effects_are_read_where_they_can_be_listed(
    demo_effect_lenses: Path, s3: S3Server, impatient: None
) -> None:
    store = demo_effect_lenses.parent / "cache"
    here, there = EffectStore(open_cache(store)), EffectStore(open_cache(s3.upload(store)))
    assert here.delta(3).tobytes() == there.delta(3).tobytes()


def test_a_place_that_takes_no_copies_gives_one_line(far: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as refused:
        open_cache(far, StageSettings(stage=tmp_path / "file"))
    assert re.fullmatch(
        r"cannot keep a copy in \S+/file: (File exists|Not a directory); name another directory with --stage, or make room, "
        "and run again",
        str(refused.value),
    )


def test_a_full_disk_drops_copies_and_then_gives_one_line(far: str, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        cache = open_cache(far, StageSettings(stage=place, stage_gib=1))  # more than the disk holds
        cache.files_by_shard()  # copies the records
        cache.read_shard(Z, 0)
        fill(place)
        cache.read_shard(Z, 1)
        assert copies(cache) == ["c.1.0.0"]
        stage_of(cache).space.empty()
        fill(place)
        said = line(RunError, cache)
        assert said.startswith(
            f"cannot keep a copy in {place}: No space left on device; name another directory"
        )
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "other").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(2**12))
