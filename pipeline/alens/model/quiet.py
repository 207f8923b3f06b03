"""The libraries' progress bars and advice stay out of the log; errors still raise."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block transformers and DeepSpeed say nothing; afterwards all is as it was."""
    from transformers.utils import logging as transformers_logging

    deepspeed = logging.getLogger("DeepSpeed")
    before, verbosity = deepspeed.level, transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    deepspeed.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        deepspeed.setLevel(before)
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def panics_unprinted() -> Iterator[None]:
    """Within the block nothing reaches standard error: a library in Rust prints lines of its own before it raises."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
