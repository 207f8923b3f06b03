"""What every trial needs: a small cache to write, the judge of what is left of it, and processes that start fast."""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt
import pyarrow.parquet
import pytest

from alens import AlensError, CacheRequest, demo, open_cache, write_cache
from alens.store.schema import CacheSettings

SETTINGS = CacheSettings(
    seq_len=64, rows_per_shard=128, batch_size=1, top_k=8, tail_samples=8, layers=(1,), max_rows=256
)
"""2 shards of 2 batches: a third of a second to write, so that hundreds of faults can be tried."""

TEXT_ROWS = 2000
"""Rows of the demo's text: enough for 24 shards, and tokenised in no time."""


@dataclasses.dataclass(frozen=True)
class Work:
    """The work that is asked for, as a request and as the same arguments of the command."""

    text: Path
    settings: CacheSettings

    def request(self, store: Path) -> CacheRequest:
        return CacheRequest(
            model="demo", corpus=str(self.text), store=store, settings=self.settings, device="cpu"
        )

    def arguments(self, store: Path, *more: str) -> list[str]:
        s = self.settings
        numbers = {
            "--seq-len": s.seq_len,
            "--rows-per-shard": s.rows_per_shard,
            "--max-rows": s.max_rows,
            "--batch-size": s.batch_size,
            "--top-k": s.top_k,
            "--tail-samples": s.tail_samples,
        }
        options = [str(part) for pair in numbers.items() for part in pair]
        layers = ",".join(map(str, s.layers or ()))
        return ["cache", "demo", str(self.text), str(store), *options, "--layers", layers, "--device", "cpu", *more]  # fmt: skip


class Numbers(NamedTuple):
    """Everything that a reader gives of a cache."""

    shards: dict[int, dict[str, npt.NDArray[Any]]]
    weights: dict[str, npt.NDArray[Any]]
    tokens: npt.NDArray[Any]


def array_hashes(store: Path) -> dict[str, str]:
    """The hash of each file of numbers and its metadata; unfinished files do not count."""
    files = [*(store / "arrays.zarr").rglob("*"), store / "tokens.npy"]
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not path.name.endswith(".partial")
    }


def same(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    return (actual.shape, actual.dtype, actual.tobytes()) == (
        expected.shape,
        expected.dtype,
        expected.tobytes(),
    )


class Judge:
    """Compares caches with one that was written undisturbed."""

    def __init__(self, work: Work, undisturbed: Path) -> None:
        self.work, self.undisturbed = work, undisturbed
        metadata = [(path.parent, json.loads(path.read_text())) for path in (undisturbed / "arrays.zarr").rglob("zarr.json")]  # fmt: skip
        names = {str(folder.relative_to(undisturbed / "arrays.zarr")) for folder, body in metadata if body["node_type"] == "array"}  # fmt: skip
        self.weight_names = sorted(name.removeprefix("model/") for name in names if name.startswith("model/"))
        self.names = sorted(name for name in names if not name.startswith("model/"))
        cache = open_cache(undisturbed)
        assert cache.sealed
        self.hashes = array_hashes(undisturbed)
        self.records, self.fingerprint, self.plan = cache.files_by_shard(), cache.fingerprint, cache.plan
        self.numbers = Numbers(
            {shard: {name: cache.read_shard(name, shard) for name in self.names} for shard in cache.shards},
            {name: cache.weights(name) for name in self.weight_names},
            cache.tokens,
        )

    def assert_whole(self, store: Path) -> None:
        """Sealed, and equal in every byte and every number; only times, hosts and workers may differ."""
        cache = open_cache(store)
        assert cache.sealed and (store / "MANIFEST.json").is_file()
        assert array_hashes(store) == self.hashes
        assert cache.files_by_shard() == self.records
        assert (cache.plan.identity, cache.fingerprint) == (self.plan.identity, self.fingerprint)
        self.assert_right(store)

    def assert_right(self, store: Path) -> tuple[int, ...] | None:
        """A reader refuses the cache (None), or every number of what it calls committed is right."""
        try:
            cache = open_cache(store)
        except AlensError:
            return None
        assert cache.plan.identity == self.plan.identity
        for shard in cache.shards:
            for name, expected in self.numbers.shards[shard].items():
                assert same(cache.read_shard(name, shard), expected), (name, shard)
        for name, expected in self.numbers.weights.items():
            assert same(cache.weights(name), expected), name
        assert same(cache.tokens, self.numbers.tokens)
        return cache.shards


def assert_one_line(outcome: Any, code: int, *says: str) -> None:
    """One line is the error, the others are progress, or empty after a ^C; nothing is a traceback."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.stderr, outcome.stderr
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("alens: ")]
    assert len(errors) == 1, outcome.stderr
    for part in says:
        assert part in errors[0]


class WarmParent:
    """Forks `alens` from a process that has imported everything: a worker starts in milliseconds, not seconds."""

    def __init__(self, warm_up: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm_parent.py")), *warm_up],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "warm"

    def start(self, arguments: list[str], stderr: Path) -> int:
        """The process id of `alens ARGUMENTS`."""
        self._ask({"start": arguments, "stderr": str(stderr)})
        return int(self._answer())

    def wait(self, pid: int) -> int:
        """Its exit code, negative for the signal that ended it."""
        self._ask({"wait": pid})
        return int(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """2 shards of the demo."""
    table = pyarrow.parquet.read_table(demo.CORPUS, columns=["text"])[:TEXT_ROWS]
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("\n".join(table["text"].to_pylist()))
    return Work(text, SETTINGS)


@pytest.fixture(scope="session")
def judge_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Work], Judge]:
    """The judge of some work. The undisturbed cache is written once."""
    known: dict[Work, Judge] = {}

    def judge(work: Work) -> Judge:
        if work not in known:
            store = tmp_path_factory.mktemp("undisturbed") / "store"
            write_cache(work.request(store))
            known[work] = Judge(work, store)
        return known[work]

    return judge


@pytest.fixture(scope="session")
def judge(work: Work, judge_of: Callable[[Work], Judge]) -> Judge:
    return judge_of(work)


@pytest.fixture(scope="session")
def longer(work: Work) -> Work:
    """24 shards: enough to be stopped or killed between any two of them."""
    return Work(work.text, dataclasses.replace(work.settings, max_rows=24 * work.settings.rows_per_shard))


@pytest.fixture(scope="session")
def longer_judge(longer: Work, judge_of: Callable[[Work], Judge]) -> Judge:
    return judge_of(longer)


@pytest.fixture(scope="session")
def one_line() -> Callable[..., None]:
    return assert_one_line


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A new folder in memory where there is one: the thousands of syncs of a sweep are then free."""
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="alens-durability-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def warm_parent(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmParent]:
    parent = WarmParent(work.arguments(tmp_path_factory.mktemp("warm") / "store"))
    with contextlib.closing(parent):
        yield parent


@pytest.fixture(scope="session")
def pace_s(longer: Work, warm_parent: WarmParent, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that one undisturbed process takes for `longer`, on this machine and at its present load."""
    folder = tmp_path_factory.mktemp("pace")
    began = time.monotonic()
    assert warm_parent.wait(warm_parent.start(longer.arguments(folder / "store"), folder / "log")) == 0
    return time.monotonic() - began
