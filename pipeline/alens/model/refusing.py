"""Whatever a library says of a file that it cannot use becomes one line.

In: a block that gives a file of a model to transformers, tokenizers or TransformerLens. Out: its errors of any kind as
`RequestError`. These libraries check little of what stands in such a file, so a wrong value ends in whatever the line
raises that first uses it; a panic in Rust is not even an `Exception`.
"""

import contextlib
from collections.abc import Iterator

from alens.errors import AlensError, RequestError

PANICS = "pyo3_runtime"
"""The module of what a library in Rust raises when it panics; it cannot be imported."""

MOST_SAID = 200
"""Characters of a library's message that a line holds."""


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Errors within the block become `RequestError`: `what`, and the first line of what was said.

    What is asked of Python itself stays: too little memory, Ctrl-C.
    """
    try:
        yield
    except (AlensError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if type(error).__name__ == "OutOfMemoryError":  # of a GPU: it is not imported here
            raise
        if not isinstance(error, Exception) and type(error).__module__ != PANICS:
            raise
        raise RequestError(f"{what}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What was said, or its type where nothing was, or no more than the name of a missing key."""
    said = " ".join((str(error).strip().splitlines() or [""])[0].split())
    said = said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]} ..."
    return f"{type(error).__name__}: {said}".removesuffix(": ") if len(said) < 24 else said
