"""A cache goes to a real S3 server on this machine, whole or in parts, through faults and kills; what is there is read back
and verified as a directory."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens.errors import AlensError, DamageError, RequestError, RunError, StoppedError
from alens.job.progress import Progress
from alens.remote import objects as remote_objects
from alens.remote.address import address
from alens.remote.objects import Objects
from alens.remote.patience import Patience
from alens.store.cache_reader import open_cache
from alens.store.effect_files import EffectFiles
from alens.store.paths import ARRAYS, MANIFEST, PLAN, SKELETON, StorePaths
from alens.store.push import push_cache
from alens.store.verify import verify_cache

from ..object_servers import FaultyServer, S3Server, faulty_server

SHORT = Patience(tries=2, first_wait_s=0.01)


@pytest.fixture
def place(s3: S3Server) -> str:
    """An empty address."""
    return f"s3://{s3.new_bucket()}/caches/mine"


@pytest.fixture
def server(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Stands before the S3 server, and tries nothing for long."""
    with faulty_server(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setattr(remote_objects, "PATIENCE", SHORT)
        yield running


@pytest.fixture
def cache(wholes: dict[str, Path]) -> Path:
    """A sealed cache of three shards. Shared: copy it before writing."""
    return wholes["float16"]


@pytest.fixture
def copy(cache: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(cache, tmp_path / "copy"))


def at(place: str) -> Objects:
    where = address(place)
    assert where is not None
    return Objects(where)


def fetched(place: str, folder: Path) -> Path:
    """What is there, as a directory."""
    there = at(place)
    for path, size in there.names() or ():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"".join(there.blocks(path, size)))
    return folder


def same_files(one: Path, other: Path) -> bool:
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (one, other)
    ]
    return files[0] == files[1]


def written(server: FaultyServer) -> list[str]:
    """The paths of objects that were written, in the order in which their writing began."""
    return [
        line.partition("/caches/mine/")[2].partition("?")[0]
        for line in server.requests
        if line.startswith("PUT")
    ]


def keep(store: Path, shards: set[int]) -> None:
    """Leave only these shards of a cache, as on a machine that wrote them."""
    cache = open_cache(store)
    for shard in set(cache.shards) - shards:
        for key in cache.commits.record(shard)["files"]:
            (store / ARRAYS / key).unlink()
        cache.paths.record(shard).unlink()
    cache.paths.manifest.unlink()


def refusal(error: type[AlensError], work: Callable[[], object]) -> str:
    with pytest.raises(error) as refused:
        work()
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_a_cache_arrives_whole_and_each_record_after_its_files(
    cache: Path, place: str, server: FaultyServer, tmp_path: Path
) -> None:
    told: list[Progress] = []
    pushed = push_cache(cache, place, report=told.append)
    opened = open_cache(cache)
    assert (pushed.shards, pushed.shards_sent, pushed.shards_there, pushed.sealed) == (3, 3, 0, True)
    assert (told[-1].stage, told[-1].done, told[-1].unit) == ("push", told[-1].total, "bytes")
    assert same_files(cache, fetched(place, tmp_path / "fetched"))
    order = written(server)
    assert order[0] == PLAN and order[-1] == MANIFEST
    records = {SKELETON: opened.commits.skeleton()}
    for shard in opened.shards:
        records[StorePaths(Path()).record(shard).as_posix()] = opened.commits.record(shard)
    for path, record in records.items():
        assert record is not None
        assert max(order.index(f"{ARRAYS}/{key}") for key in record["files"]) < order.index(path)


def test_what_is_there_is_not_sent_again(cache: Path, place: str, server: FaultyServer) -> None:
    push_cache(cache, place)
    server.requests.clear()
    pushed = push_cache(cache, place)
    assert (pushed.shards_sent, pushed.shards_there, pushed.bytes_sent, pushed.sealed) == (0, 3, 0, True)
    assert written(server) == []


@pytest.mark.slow
def test_what_was_pushed_is_read_and_verified_where_it_lies(
    run_alens: Any, cache: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALENS_STAGE", str(tmp_path / "stage"))
    push_cache(cache, place)
    assert open_cache(place).fingerprint == open_cache(cache).fingerprint
    outcome = run_alens("verify", place, "--json")
    verdict = json.loads(outcome.stdout)
    assert (outcome.code, verdict["whole"], verdict["findings"]) == (0, True, [])
    assert run_alens("info", place, "--array", "3").stdout == ""
    at(place).put(f"{ARRAYS}/targets/ids/c.1.0", b"short")
    assert run_alens("verify", place).code == 1
    push_cache(cache, place)
    assert run_alens("verify", place).code == 0


@pytest.mark.slow
def test_a_dry_run_writes_nothing(cache: Path, place: str, server: FaultyServer) -> None:
    pushed = push_cache(cache, place, dry_run=True)
    assert (pushed.shards_sent, pushed.sealed, written(server)) == (3, False, [])
    assert push_cache(cache, place).bytes_sent == pushed.bytes_sent


def test_another_cache_is_never_overwritten(cache: Path, place: str, server: FaultyServer) -> None:
    plan = open_cache(cache).plan
    other = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, seed=9))
    at(place).put(PLAN, other.to_json())
    server.requests.clear()
    line = refusal(RequestError, lambda: push_cache(cache, place))
    assert line.startswith(f"{place} holds another cache (plan {other.identity[:12]}, that of {cache} is ")
    assert written(server) == []


@pytest.mark.slow
def test_two_caches_that_come_at_once_do_not_mix(
    cache: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw an empty place. The plan of the second is refused, and nothing of it is sent."""
    plan = open_cache(cache).plan
    other = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, seed=9))
    seen = Objects.names

    def names(self: Objects) -> object:
        listed = list(seen(self) or ())
        at(place).create(PLAN, other.to_json())
        return iter(listed)

    with monkeypatch.context() as late:
        late.setattr(Objects, "names", names)
        assert "holds another cache" in refusal(RequestError, lambda: push_cache(cache, place))
    assert [path for path, _ in at(place).names() or ()] == [PLAN]


def test_other_objects_are_left_alone(cache: Path, place: str) -> None:
    at(place).put("notes/mine.txt", b"mine")
    line = refusal(RequestError, lambda: push_cache(cache, place))
    assert line == f"{place} holds other objects, notes/mine.txt among them: give a prefix that is empty"


@pytest.mark.parametrize(
    ("store", "to", "says"),
    [
        (
            "s3://bucket/x",
            "s3://bucket/y",
            "cannot push from s3://bucket/x: give a directory of this machine",
        ),
        ("{cache}", "some/where", "some/where is a path: give an address, s3://BUCKET/PREFIX"),
        ("{cache}", "https://host/x", "https://host/x can only be read: write to s3://BUCKET/PREFIX"),
    ],
)
def test_an_address_that_cannot_be_written_is_refused(cache: Path, store: str, to: str, says: str) -> None:
    assert refusal(RequestError, lambda: push_cache(store.format(cache=cache), to)) == says


@pytest.mark.slow
def test_machines_that_share_no_disk_fill_one_cache(cache: Path, place: str, tmp_path: Path) -> None:
    """Each has the shards of its worker, and a plan that it made itself. The last one to come seals the cache."""
    for worker, shards in enumerate([(0, 2), (1,)]):
        store = Path(shutil.copytree(cache, tmp_path / f"machine-{worker}"))
        plan = open_cache(store).plan
        mine = dataclasses.replace(plan, created={**plan.created, "host": f"machine-{worker}"})
        (store / PLAN).write_bytes(mine.to_json())
        keep(store, set(shards))
        pushed = push_cache(store, place)
        assert (pushed.shards_sent, pushed.shards_there, pushed.sealed) == (len(shards), 0, worker == 1)
        there = fetched(place, tmp_path / f"after-{worker}")
        assert verify_cache(there).whole and len(open_cache(there).shards) == 2 + worker
    assert open_cache(there).fingerprint == open_cache(cache).fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["503", "close"])
def test_a_request_that_fails_once_is_made_again(
    cache: Path, place: str, server: FaultyServer, tmp_path: Path, fault: str
) -> None:
    server.fail(fault, r"PUT .*/c\.1", times=1)  # type: ignore[arg-type]  # one of the faults
    assert push_cache(cache, place).sealed
    assert same_files(cache, fetched(place, tmp_path / "fetched"))


def test_a_push_that_failed_goes_on_where_it_was(
    cache: Path, place: str, server: FaultyServer, tmp_path: Path
) -> None:
    """The last file of shard 1 is refused to the end: the others are known by their hashes, and not sent again."""
    *_, last = open_cache(cache).commits.record(1)["files"]
    server.fail("503", f"PUT .*{re.escape(last)}")
    line = refusal(RunError, lambda: push_cache(cache, place))
    assert line.startswith(f"cannot write {place}/{ARRAYS}/{last}: the server answers 503")
    before = {path for path, _ in at(place).names() or ()}
    assert "commits/000000.json" in before and not {"commits/000001.json", MANIFEST} & before
    assert [path for path in before if "/c.1." in path]
    server.heal()
    server.requests.clear()
    pushed = push_cache(cache, place)
    assert (pushed.shards_sent, pushed.shards_there, pushed.sealed) == (2, 1, True)
    assert not before & set(written(server))
    assert same_files(cache, fetched(place, tmp_path / "fetched"))


@pytest.mark.slow
def test_a_push_that_was_asked_to_stop_goes_on(cache: Path, place: str, tmp_path: Path) -> None:
    asked = iter(range(10**6))
    line = refusal(StoppedError, lambda: push_cache(cache, place, should_stop=lambda: next(asked) > 30))
    assert line == f"stopped; what {place} holds whole is kept: run again to send the rest"
    assert push_cache(cache, place).sealed
    assert same_files(cache, fetched(place, tmp_path / "fetched"))


@pytest.mark.slow
def test_two_pushes_at_once_are_one_cache(cache: Path, place: str, tmp_path: Path) -> None:
    sealed: list[bool] = []
    threads = [threading.Thread(target=lambda: sealed.append(push_cache(cache, place).sealed)) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sealed == [True, True]
    assert same_files(cache, fetched(place, tmp_path / "fetched"))


def test_a_damaged_file_is_not_sent_and_nor_is_its_record(copy: Path, place: str) -> None:
    path = copy / ARRAYS / "targets" / "ids" / "c.1.0"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    line = refusal(DamageError, lambda: push_cache(copy, place))
    assert line.startswith(f"{path} ") and f"`alens verify {copy} --repair` queues it" in line
    there = {name for name, _ in at(place).names() or ()}
    assert "commits/000000.json" in there and not {"commits/000001.json", MANIFEST} & there


@pytest.mark.slow
def test_what_was_damaged_there_is_sent_anew(cache: Path, place: str, tmp_path: Path) -> None:
    push_cache(cache, place)
    at(place).put(f"{ARRAYS}/targets/ids/c.1.0", b"short")
    at(place).put("commits/000002.json", b"{}")
    at(place).put(MANIFEST, b"{}")
    pushed = push_cache(cache, place)
    assert (pushed.shards_sent, pushed.shards_there) == (2, 1)
    assert same_files(cache, fetched(place, tmp_path / "fetched"))


@pytest.mark.slow
def test_other_metadata_are_refused(copy: Path, place: str) -> None:
    """As another version of zarr may write them: the records there would not be of these files."""
    push_cache(copy, place)
    from alens.store import document

    skeleton = copy / SKELETON
    body = document.decode(skeleton.read_bytes(), "")
    name = next(iter(body["files"]))
    body["files"][name] = {**body["files"][name], "sha256": "0" * 64}
    skeleton.write_bytes(document.encode(body))
    line = refusal(RequestError, lambda: push_cache(copy, place))
    assert line.startswith(f"{place}/{SKELETON} names other metadata or weights than {skeleton}")


@pytest.mark.slow
def test_effects_go_with_their_cache(copy: Path, place: str, tmp_path: Path) -> None:
    files = EffectFiles(copy, open_cache(copy).plan.identity)
    push_cache(copy, place)
    note = {"sequences": [0], "mean_sha256": "0" * 64, "rows": 3}
    files.put(0, 0, [0, 1], np.zeros((3, 2, 8), np.float16), note)
    pushed = push_cache(copy, place)
    assert (pushed.shards_sent, pushed.measured_sent, pushed.sealed) == (0, 1, True)
    assert push_cache(copy, place).measured_sent == 0
    assert same_files(copy, fetched(place, tmp_path / "fetched"))


@pytest.mark.slow
def test_a_push_that_was_killed_goes_on(
    cache: Path, place: str, server: FaultyServer, tmp_path: Path
) -> None:
    """The command is killed while a file of the second shard is on its way."""
    server.fail("silent", r"PUT .*targets/log_probs/c\.1")
    command = [str(Path(sys.executable).with_name("alens")), "push", str(cache), place]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not any("targets/log_probs/c.1" in line for line in server.requests):
            assert running.poll() is None
        running.send_signal(signal.SIGKILL)
    server.heal()
    before = {path for path, _ in at(place).names() or ()}
    assert "commits/000000.json" in before and not {"commits/000001.json", MANIFEST} & before
    server.requests.clear()
    assert push_cache(cache, place).sealed
    assert not before & set(written(server))
    assert same_files(cache, fetched(place, tmp_path / "fetched"))
