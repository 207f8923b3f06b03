"""What the machine refused, wherever that came up: memory, open files, threads.

In: an exception that reached the command line. Out: a line that says what was short and how much of it this process
may have. A library that finds no room says so in many ways: MemoryError, an ImportError of a file that could not be
mapped, a RuntimeError of C++; and code that met it may have called a file damaged or a model unreadable.
"""

import errno
import gc
import resource
import sys
import traceback
import warnings
from collections.abc import Iterator

MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "out of memory",
    "std::bad_alloc",
)
FILES = ("too many open files", "failed to init uv loop")
THREADS = ("can't start new thread", "resource temporarily unavailable")


def lack(error: BaseException) -> str | None:
    """The line; None where nothing was short."""
    for one in _chain(error):
        said = str(one).lower()
        number = one.errno if isinstance(one, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or _says(said, FILES):
            return f"too many open files: {_limit(resource.RLIMIT_NOFILE, '-n')}; 1,024 is plenty"
        if number is None and _says(said, THREADS):
            return (
                f"no thread could be started: {_limit(resource.RLIMIT_NPROC, '-u')}, {_memory_limit()}; "
                "raise them, or set OMP_NUM_THREADS=1"
            )
        # A SystemError is C code that failed and set no error: seen only where it got no memory.
        if isinstance(one, MemoryError | SystemError) or number == errno.ENOMEM or _says(said, MEMORY):
            what = next(iter(str(one).splitlines()), "") or "no memory left"
            return f"out of memory ({_memory_limit()}): {what}; ask for less, or take a machine with more"
    return None


def forget(error: BaseException) -> None:
    """Free what an exception holds. What a library left half made complains when Python takes it away, of itself and
    not of the machine: that is not shown."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings(action="ignore"):
            for one in _chain(error):
                traceback.clear_frames(one.__traceback__)
                one.__traceback__ = None
            gc.collect()
    finally:
        sys.unraisablehook = hook


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from, also where that is not shown."""
    at: BaseException | None = error
    met: set[int] = set()
    while at is not None and id(at) not in met:
        met.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _says(said: str, words: tuple[str, ...]) -> bool:
    return any(word in said for word in words)


def _memory_limit() -> str:
    return _limit(resource.RLIMIT_AS, "-v", 1024)


def _limit(which: int, flag: str, unit: int = 1) -> str:
    soft, _ = resource.getrlimit(which)
    return f"ulimit {flag} is {'unlimited' if soft == resource.RLIM_INFINITY else f'{soft // unit:,}'}"
