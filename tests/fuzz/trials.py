"""One trial: a specimen changed in one place, a command run on it, and what is wrong with how that ended.

In: the folder of all specimens, a kind of document, draws. Out: a `Finding`, or None where the command did what it
should: its work, or one line and an exit code that says whose fault it is.
"""

import contextlib
import io
import logging
import os
import random
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from alens import cli

from . import changes, forge, specimens
from .specimens import Kind, Trial

CODES = {0, 1, 2, 75}
MOST_S = 30.0
"""A trial that ends well takes a few seconds on a busy machine."""
FORGED = 0.7
"""The share of changes after which the hashes are made right. The others are flipped bits that the hashes do not know of."""
MOST_BYTES = 1024**3
"""Address space beyond that of the process: specimens take kilobytes."""


@dataclass(frozen=True)
class Finding:
    """What a command must not do."""

    what: str
    """`traceback`, `code`, `time`, `memory`, `outside`, `wrong`, `unnoticed`, `lines`."""
    where: str
    """For a traceback: its type and the line of alens that it came from. Findings with the same `where` are one."""
    kind: str
    told: str
    """The change and the command, to see it again."""


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int | None
    stdout: str
    stderr: str
    error: BaseException | None
    seconds: float


class TooLongError(BaseException):
    """Raised in a command that does not end. `except Exception` does not catch it."""


def run(arguments: list[str]) -> Ending:
    """`alens ARGUMENTS` in this process, within bounds of time and memory."""
    out, err = io.StringIO(), io.StringIO()
    handlers, started = list(logging.getLogger("alens").handlers), time.monotonic()
    code, error = None, None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _environment():
        try:
            with _bounds():
                code = cli.run(arguments)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as caught:  # a panic of a library in Rust is not an Exception
            error = caught
        finally:
            logging.getLogger("alens").handlers[:] = handlers
    return Ending(code, out.getvalue(), err.getvalue(), error, time.monotonic() - started)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """A fit sets the variables of a launcher: they go with it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _bounds() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, hard))
    signal.setitimer(
        signal.ITIMER_REAL, MOST_S, 1.0
    )  # again each second: a handler may be lost in foreign code
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def arguments(folder: Path, trial: Trial, out: Path) -> list[str]:
    """The command, with the places of the specimens."""

    def put(part: str) -> str:
        name = part[1:-1]
        if not (part.startswith("{") and part.endswith("}")):
            return part
        return str(out if name == "out" else specimens.place(folder, name))

    return [put(part) for part in trial.command]


class Bench:
    """Whole specimens, and a folder in which one of them at a time is changed."""

    def __init__(self, whole: Path, work: Path) -> None:
        """`whole` holds the specimens and is never written to; `work` is there and empty."""
        self.whole, self.work = whole, work
        self.folder = work / "inside" / "specimens"
        shutil.copytree(whole, self.folder)
        self._right: dict[Trial, Ending] = {}

    def right(self, trial: Trial) -> Ending:
        """How a command ends on what nobody changed."""
        if trial not in self._right:
            ending = run(arguments(self.folder, trial, self.work / "inside" / "out"))
            assert ending.code == 0, (trial, ending)
            self._clean()
            self._right[trial] = ending
        return self._right[trial]

    def try_one(self, kind: Kind, trial: Trial, draw: random.Random, *, forged: bool) -> Finding | None:
        """Change a file of `kind`, run, judge, and put everything back."""
        if trial.compares and not forged and not kind.absent:
            self.right(trial)
        file = draw.choice(
            sorted(path for part in kind.files for path in self.folder.glob(part) if path.is_file())
        )
        return self.try_change(
            kind, trial, file, lambda: self._change(file, draw, forged), hidden=kind.hashed and not forged
        )

    def try_change(
        self, kind: Kind, trial: Trial, file: Path, change: Callable[[], str | None], *, hidden: bool
    ) -> Finding | None:
        """`hidden`: whether hashes tell that `file` was changed."""
        try:
            what = change()
            if what is None:
                return None
            before = self._outside()
            ending = run(arguments(self.folder, trial, self.work / "inside" / "out"))
            told = f"{file.relative_to(self.folder)} {what}: alens {' '.join(trial.command)}"
            outside = self._outside() != before
            return self._judge(kind, trial, ending, told, outside, hidden)
        finally:
            self._clean()

    def _change(self, file: Path, draw: random.Random, forged: bool) -> str | None:
        if not forged:
            return changes.flip(file, draw)
        done = changes.change(file, draw)
        if done is None:
            return None
        forge.mend(self.folder, file, done[1])
        return done[0]

    def _clean(self) -> None:
        """Only what differs is copied again."""
        shutil.rmtree(self.work / "inside" / "out", ignore_errors=True)
        there = {path.relative_to(self.folder) for path in self.folder.rglob("*")}
        right = {path.relative_to(self.whole) for path in self.whole.rglob("*")}
        for name in sorted(there - right, reverse=True):
            path = self.folder / name
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for name in sorted(right):
            source, copy = self.whole / name, self.folder / name
            if source.is_dir():
                copy.mkdir(exist_ok=True)
            elif not copy.is_file() or copy.stat().st_mtime_ns != source.stat().st_mtime_ns:
                shutil.copy2(source, copy)

    def _outside(self) -> list[tuple[str, int]]:
        """All files but the specimens and what a command was told to write."""
        inside = (self.folder, self.work / "inside" / "out")
        return sorted(
            (str(path), path.lstat().st_mtime_ns)
            for path in self.work.rglob("*")
            if not path.is_dir() and not any(path.is_relative_to(part) for part in inside)
        )

    def _judge(
        self, kind: Kind, trial: Trial, ending: Ending, told: str, outside: bool, hidden: bool
    ) -> Finding | None:
        def finding(what: str, where: str) -> Finding:
            return Finding(what, where, kind.name, told)

        command = trial.command[0]
        if isinstance(ending.error, TooLongError):
            return finding("time", command)
        if ending.error is not None:
            return finding("traceback", place_of(ending.error))
        if "out of memory" in ending.stderr:
            return finding("memory", command)
        if ending.code not in CODES:
            return finding("code", f"{command} {ending.code}")
        if outside:
            return finding("outside", command)
        errors = [line for line in ending.stderr.splitlines() if line.startswith("alens: ")]
        if ending.code and command != "verify" and len(errors) != 1:
            return finding("lines", f"{command} says {len(errors)}")
        if hidden and ending.code == 0 and trial.notices:
            return finding("unnoticed", command)
        if (
            hidden
            and ending.code == 0
            and trial.compares
            and not kind.absent
            and ending.stdout != self.right(trial).stdout
        ):
            return finding("wrong", command)
        return None


def place_of(error: BaseException) -> str:
    """`TypeError at store/status.py:58`: the last line of alens that the error went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/alens/" in frame.filename]
    if not frames:
        return type(error).__name__
    return f"{type(error).__name__} at {frames[-1].filename.rpartition('/alens/')[2]}:{frames[-1].lineno}"


def fuzz(
    bench: Bench, kinds: Iterable[Kind], rounds: int, seed: int, *, first_only: bool = False
) -> list[Finding]:
    """So many trials of each kind, each with draws of its own; with `first_only` only the first command of a kind."""
    findings = []
    for number in range(rounds):
        for kind in kinds:
            draw = random.Random(f"{seed} {number} {kind.name}")
            forged = not kind.hashed or draw.random() < FORGED
            first = first_only or draw.random() < 0.5
            trial = kind.trials[0] if first else draw.choice(kind.trials)
            findings.append(bench.try_one(kind, trial, draw, forged=forged))
    return [finding for finding in findings if finding is not None]


def shown(findings: Iterable[Finding]) -> str:
    """Distinct findings, each with the change and the command that show it."""
    by: dict[str, str] = {}
    for finding in findings:
        by.setdefault(f"{finding.what}: {finding.where} ({finding.kind})", finding.told)
    return "\n".join(f"{what}\n    {told}" for what, told in sorted(by.items()))
