"""How alens calls transformers, tokenizers and TransformerLens: imported fast, kept quiet, refusals in one line.

In: a block of code that imports one of these libraries, or gives it a file of a model. Out: the same result, without
the libraries' messages, and their errors of any kind as `RequestError`. These libraries check little of what a file
says, so a wrong value fails in whatever line first uses it; a panic in Rust is not even an `Exception`.
"""

import contextlib
import gc
import logging
import os
import warnings
from collections.abc import Iterator

from alens.errors import AlensError, RequestError
from alens.machine.replaced import replaced

PANICS = "pyo3_runtime"
"""The module of the exception that a library in Rust raises when it panics; it cannot be imported."""

MOST_SAID = 200
"""Characters of a library's message that fit into the line."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Python's garbage collector rests within the block, and is afterwards as it was.

    torch, transformers and TransformerLens make hundreds of thousands of objects that live as long as the process. The
    collector would go through them again and again, for nothing (docs/decisions/0028). Blocks may stand in blocks.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block transformers and DeepSpeed print no bars and no advice; errors still raise."""
    from transformers.utils import logging as transformers_logging

    deepspeed = logging.getLogger("DeepSpeed")
    level, verbosity = deepspeed.level, transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    deepspeed.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        deepspeed.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def rows_not_packed() -> Iterator[None]:
    """Within the block transformers takes each row of a batch for one sequence, as alens makes them.

    It would look at the positions of each batch for several in a row, and the host would wait for a GPU, which has the
    batch before still to do (docs/decisions/0075). A transformers that has no such look is left as it is.
    """
    from transformers import masking_utils

    look = "find_packed_sequence_indices"
    if not hasattr(masking_utils, look):
        yield
        return
    with replaced(masking_utils, look, lambda position_ids: None):
        yield


@contextlib.contextmanager
def panics_unprinted() -> Iterator[None]:
    """Within the block nothing reaches standard error: a library in Rust prints its panic before it raises."""
    try:
        standard_error = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Errors within the block become a `RequestError` of `what` and the first line of the library's message.

    Running out of memory and interrupts such as Ctrl-C pass through unchanged.
    """
    try:
        yield
    except (AlensError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, for a GPU: torch is not imported here
            raise
        if not isinstance(error, Exception) and type(error).__module__ != PANICS:
            raise
        raise RequestError(f"{what}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type goes before a short message, such as the name of a missing key."""
    line = " ".join((str(error).strip().splitlines() or [""])[0].split())
    line = line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]} ..."
    return f"{type(error).__name__}: {line}".removesuffix(": ") if len(line) < 24 else line
