"""What the machine refused: memory, open files, threads.

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
    """What was short, as a line; None where nothing was."""
    for one in _chain(error):
        text = str(one).lower()
        number = one.errno if isinstance(one, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or _says(text, FILES):
            return f"too many open files: {_limit(resource.RLIMIT_NOFILE, '-n')}; 1,024 is plenty"
        if number is None and _says(text, THREADS):
            return (
                f"no thread could be started: {_limit(resource.RLIMIT_NPROC, '-u')}, {_memory_limit()}; "
                "raise them, or set OMP_NUM_THREADS=1"
            )
        # A SystemError is C code that failed and set no error: this was seen only where it got no memory.
        if isinstance(one, MemoryError | SystemError) or number == errno.ENOMEM or _says(text, MEMORY):
            what = next(iter(str(one).splitlines()), "") or "no memory left"
            return f"out of memory ({_memory_limit()}): {what}; ask for less, or take a machine with more"
    return None


def forget(error: BaseException) -> None:
    """Free what an exception holds. Objects that a library left half made complain when Python deletes them: that is not
    shown, as it would hide the reason."""
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
    """An exception and those it was raised from, also where these are not shown."""
    at: BaseException | None = error
    met: set[int] = set()
    while at is not None and id(at) not in met:
        met.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _memory_limit() -> str:
    return _limit(resource.RLIMIT_AS, "-v", 1024)


def _limit(which: int, flag: str, unit: int = 1) -> str:
    soft, _ = resource.getrlimit(which)
    return f"ulimit {flag} is {'unlimited' if soft == resource.RLIM_INFINITY else f'{soft // unit:,}'}"
