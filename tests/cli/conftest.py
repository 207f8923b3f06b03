"""A small cache that the command wrote, and how its outcome and its files are looked at."""

import contextlib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import cli

SMALL = [
    *("--seq-len", "32", "--rows-per-shard", "128", "--max-rows", "512", "--batch-size", "2"),
    *("--top-k", "4", "--tail-samples", "4", "--layers", "0,2-3", "--device", "cpu"),
]


@pytest.fixture(scope="session")
def small_options() -> list[str]:
    """4 shards of 128 rows, 3 layers of the demo."""
    return list(SMALL)


@pytest.fixture(scope="session")
def written() -> Callable[..., Path]:
    """`written(store, *options)` writes a cache of the demo in this process and gives its directory."""

    def write(store: Path, *options: str) -> Path:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert cli.run(["cache", "demo", "demo", str(store), *options]) == 0
        return store

    return write


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, written: Callable[..., Path]) -> Path:
    """A sealed cache with `small_options`. Shared: copy it before writing."""
    return written(tmp_path_factory.mktemp("small") / "store", *SMALL)


@pytest.fixture(scope="session")
def array_hashes() -> Callable[[Path], dict[str, str]]:
    """Of every file of numbers; plan and records also hold versions and times."""

    def hashes(store: Path) -> dict[str, str]:
        return {
            str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (store / "arrays.zarr").rglob("*")
            if path.is_file()
        }

    return hashes


@pytest.fixture(scope="session")
def state() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """Which files there are, and whether one was written anew."""

    def look(folder: Path) -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}

    return look


@pytest.fixture(scope="session")
def assert_one_line() -> Callable[..., None]:
    """`assert_one_line(outcome, code, *says)`: that exit code, and one line on standard error that says so."""

    def check(outcome: Any, code: int, *says: str) -> None:
        assert outcome.code == code, outcome
        assert outcome.stderr.startswith("alens: "), outcome.stderr
        assert outcome.stderr.count("\n") == 1, outcome.stderr
        assert "Traceback" not in outcome.stderr
        for part in says:
            assert part in outcome.stderr

    return check
