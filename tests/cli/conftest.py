"""A small cache that the command wrote, and how its outcome and its files are looked at."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

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
