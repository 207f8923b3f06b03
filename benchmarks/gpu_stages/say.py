"""What all stages share: figures are said a line at a time, and a stage ends with the run that began it.

In: the environment that `first_gpu.py` gives. Out: on standard output, `figure {"name": value}`.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

DEVICE = os.environ.get("ALENS_STAGE_DEVICE", "cuda")
WORK = Path(os.environ.get("ALENS_STAGE_WORK", "."))
MODEL = os.environ.get("ALENS_STAGE_MODEL")
CORPUS = os.environ.get("ALENS_STAGE_CORPUS", "demo")
REHEARSED = DEVICE == "cpu"

_out = os.fdopen(os.dup(sys.stdout.fileno()), "w")


def say(name: str, value: Any) -> None:
    """One figure, or whatever JSON can hold."""
    # The line before may not have ended, as dots of pytest.
    _out.write(f"\nfigure {json.dumps({name: value}, default=str)}\n")
    _out.flush()


def skip(why: str) -> None:
    """Say why this stage does nothing, and end."""
    say("skipped", why)
    sys.exit(0)


def end_with_run() -> None:
    """Standard input is a pipe from the run. When that ends, so does all that this stage has started."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    if os.environ.get("ALENS_STAGE_WORK"):
        threading.Thread(target=watch, daemon=True).start()


def interpret() -> None:
    """In a rehearsal, mend Triton's interpreter as the tests do. Before the first call of a kernel."""
    if REHEARSED:
        from tests.fit.objectives.interpreted_kernel import widen_bfloat16_products

        widen_bfloat16_products()
