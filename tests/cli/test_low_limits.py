"""Commands on a machine that gives little: few open files, little address space. One line, and no traceback."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alens.cli.lacks import lack
from alens.errors import DamageError, RequestError

LIMIT_S = 300
MB = 2**20


def limited(which: int, most: int, *arguments: object) -> tuple[int, list[str]]:
    """(exit code, lines of standard error that are not progress) of `alens ARGUMENTS` with that limit."""
    done = subprocess.run(
        [sys.executable, "-m", "alens", *map(str, arguments)],
        preexec_fn=lambda: resource.setrlimit(which, (most, most)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("alens: ")]


Arguments = Callable[[Path, Path, Path], list[object]]


def cache(store: Path, lenses: Path, new: Path) -> list[object]:
    return ["cache", "demo", "demo", new, "--max-rows", "512", "--seq-len", "64", "--rows-per-shard", "256"]


def fit(store: Path, lenses: Path, new: Path) -> list[object]:
    return ["fit", store, new, "--steps", "2", "--batch-rows", "128", "--eval-rows", "512"]


def evaluated(store: Path, lenses: Path, new: Path) -> list[object]:
    return ["eval", lenses, store, "--rows", "64"]


def read(store: Path, lenses: Path, new: Path) -> list[object]:
    return ["read", lenses, "The cat"]


@pytest.mark.parametrize("what", [cache, fit, evaluated, read])
def test_libraries_that_cannot_be_mapped_are_said_in_a_line(
    what: Arguments, demo_cache: Path, demo_lenses: Path, tmp_path: Path
) -> None:
    code, (line,) = limited(resource.RLIMIT_AS, 400 * MB, *what(demo_cache, demo_lenses, tmp_path / "new"))
    assert code == 1
    assert line.startswith("alens: out of memory (ulimit -v is 409,600): ")
    assert line.endswith("ask for less, or take a machine with more")


@pytest.mark.parametrize("most", [12, 16])
def test_too_few_open_files_are_said_in_a_line(most: int, demo_cache: Path, tmp_path: Path) -> None:
    code, (line,) = limited(resource.RLIMIT_NOFILE, most, *fit(demo_cache, tmp_path, tmp_path / "new"))
    assert (code, line) == (1, f"alens: too many open files: ulimit -n is {most}; 1,024 is plenty")


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_needs_little_works_with_little(command: str, demo_cache: Path) -> None:
    assert limited(resource.RLIMIT_NOFILE, 20, command, demo_cache) == (0, [])
    assert limited(resource.RLIMIT_AS, 400 * MB, command, demo_cache) == (0, [])


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        try:
            raise cause or ValueError
        except Exception:
            raise error from None
    except Exception as caught:
        return caught


def test_a_lack_is_seen_behind_what_it_was_taken_for() -> None:
    damaged = raised(DamageError("zarr.json is damaged"), RuntimeError("can't start new thread"))
    assert (lack(damaged) or "").startswith("no thread could be started: ulimit -u is ")
    unreadable = raised(RequestError("cannot be loaded"), OSError(12, "Cannot allocate memory"))
    assert (lack(unreadable) or "").startswith("out of memory (ulimit -v is ")
    assert "memory" in (lack(raised(SystemError("error return without exception set"))) or "")
    assert (lack(raised(OSError(24, "Too many open files"))) or "").startswith("too many open files")


OTHERS = [
    ValueError("x"),
    OSError(2, "No such file"),
    BlockingIOError(11, "Resource temporarily unavailable"),
    RuntimeError("shapes"),
]


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_no_lack(error: Exception) -> None:
    assert lack(raised(error)) is None
