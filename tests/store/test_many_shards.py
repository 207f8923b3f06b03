"""A store of 200,000 shards: what a command reads of it grows with what is asked for, not with the store."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alens.cache.write_cache import shards_to_write
from alens.errors import DamageError
from alens.job.worker import Worker
from alens.store import document
from alens.store.cache_reader import open_cache
from alens.store.commits import KEPT, Commits, numbers_of
from alens.store.paths import StorePaths
from alens.store.schema import Plan
from alens.store.status import MOST_READ, missing_shards

from .many_records import WORKERS, put_many, seal

SHARDS = 200_000
WITH_FILES = (0, 1, 2, SHARDS - 2, SHARDS - 1)
CPU_S = 20.0
"""Far above what anything here takes on a slow machine, and far below what grows with the square of the store."""


@pytest.fixture(scope="module")
def many(
    tmp_path_factory: pytest.TempPathFactory, tiny_plan: Plan, values: Any, tiny_weights: Any
) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("many") / "store"
    put_many(root, tiny_plan, values, tiny_weights, shards=SHARDS, with_files=WITH_FILES)
    yield root
    shutil.rmtree(root)  # pytest would keep three of them


@pytest.fixture(params=["unsealed", "sealed"])
def store(request: pytest.FixtureRequest, many: Path) -> Iterator[Path]:
    if request.param == "sealed":
        seal(many, open_cache(many).plan)
    yield many
    (many / "MANIFEST.json").unlink(missing_ok=True)


@pytest.fixture
def records_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The records that were read; at the end, that it took no longer than it may."""
    read: list[Path] = []
    content = document.content

    def watched(path: Path, *rest: Any) -> bytes:
        if path.parent.name == "commits" and path.name != "model.json":
            read.append(path)
        return content(path, *rest)

    monkeypatch.setattr(document, "content", watched)
    started = time.process_time()
    yield read
    assert time.process_time() - started < CPU_S


@pytest.mark.slow
def test_info_draws_records(store: Path, run_alens: Any, records_read: list[Path]) -> None:
    done = run_alens("info", store, "--json")
    body = json.loads(done.stdout)
    assert len({*records_read}) <= MOST_READ
    sealed = (store / "MANIFEST.json").exists()
    assert body["state"] == ("sealed" if sealed else f"{SHARDS} of {SHARDS} shards committed")
    assert body["rows"] == SHARDS * 32 and body["missing_shards"] == "none"
    assert body["records_read"].startswith(f"{MOST_READ:,} of {SHARDS:,}")
    assert len(body["workers"]) > 0.8 * WORKERS
    files = open_cache(store).commits.record(5)["files"].values()
    assert body["bytes"] == pytest.approx(SHARDS * sum(file["bytes"] for file in files), rel=1e-3)
    assert "records read: 2,048 of 200,000" in run_alens("info", store).stdout


@pytest.mark.slow
def test_a_few_shards_are_read_by_their_records(store: Path, records_read: list[Path]) -> None:
    cache = open_cache(store)
    assert cache.read_shard("rows/token", 1).shape == (32,)
    assert cache.tokens.shape == (4 * SHARDS, 8)
    cache.check_unchanged()
    assert [path.name for path in records_read] == ["000001.json"] * 2


@pytest.mark.slow
def test_a_fit_of_few_shards_reads_their_records(
    many: Path, tmp_path: Path, run_alens: Any, records_read: list[Path]
) -> None:
    seal(many, open_cache(many).plan)
    asked = ("--rows", 96, "--eval-rows", 64, "--batch-rows", 28, "--steps", 2, "--device", "cpu")
    done = run_alens("fit", many, tmp_path / "lenses", *asked)
    (many / "MANIFEST.json").unlink()
    assert done.code == 0, done.stderr
    assert {int(path.stem) for path in records_read} == {*WITH_FILES}
    body = json.loads((tmp_path / "lenses" / "fit.json").read_text())
    assert (body["train_shards"], body["held_out_shards"]) == ([0, 1, 2], [SHARDS - 2, SHARDS - 1])


@pytest.mark.slow
def test_a_worker_reads_the_records_of_its_share(many: Path, records_read: list[Path]) -> None:
    gone = many / "commits/070005.json"
    content = gone.read_bytes()
    gone.unlink()
    cache, worker = open_cache(many), Worker(index=5, count=WORKERS)
    mine = shards_to_write(cache.plan, worker, ())
    assert shards_to_write(cache.plan, worker, cache.commits.committed(mine)) == [70005]
    assert len(records_read) == SHARDS // WORKERS
    assert missing_shards(cache, cache.commits.named()) == (range(70005, 70006),)
    gone.write_bytes(content)


# The same on small stores


@pytest.fixture
def small(tmp_path: Path, tiny_plan: Plan, values: Any, tiny_weights: Any) -> Path:
    put_many(tmp_path / "small", tiny_plan, values, tiny_weights, shards=9, with_files=(0, 8))
    return tmp_path / "small"


def test_only_the_last_records_are_kept_and_a_change_of_any_is_noticed(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alens.store.commits.KEPT", 3)
    commits = Commits(StorePaths(small), open_cache(small).plan)
    files = {shard: dict(of_shard) for shard, of_shard in commits.files().items()}
    assert len(files) == 9 and len(commits._records) == 3 < KEPT
    assert commits.unchanged()
    record = document.decode((small / "commits/000000.json").read_bytes(), "it")
    for file in record["files"].values():
        file["sha256"] = "f" * 64
    (small / "commits/000000.json").write_bytes(document.encode(record))
    assert not commits.unchanged()
    commits.record(0)  # read again, it is still another one than was used
    assert not commits.unchanged()


def test_files_of_a_damaged_record_are_refused(small: Path) -> None:
    (small / "commits/000004.json").write_text("{")
    cache = open_cache(small)
    assert len(cache.shards) == 8
    with pytest.raises(DamageError, match="shard 4 of"):
        dict(cache.commits.files())


def test_of_many_records_some_are_drawn_and_the_last_ones(
    small: Path, run_alens: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alens.store.status.MOST_READ", 4)
    monkeypatch.setattr("alens.store.status.NEWEST", 2)
    (small / "commits/000008.json").write_text("{")
    body = json.loads(run_alens("info", small, "--json").stdout)
    assert body["records_read"].startswith("3 of 9: ")
    assert body["state"] == "9 of 9 shards committed"  # by name; the damaged one is left out of the figures
    assert {one["worker"] for one in body["workers"]} >= {f"7/{WORKERS}"}
    assert run_alens("info", small, "--array", 9).stdout == "8\n"  # reads every record


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["000002.json", "000001.json", "model.json"], [1, 2]),
        (["0000001.json", "00001.json", "1000000.json", "x000001.json"], [1000000]),
    ],
)
def test_names_of_records(names: list[str], numbers: list[int]) -> None:
    assert numbers_of(names) == numbers
