"""The marker of a fit that stopped on request: what a job script asks before it submits the fit again.

In: the step after which a fit stopped, its state saved. Out: `stopped.json` beside the lenses to be, put by
rank 0 before any process ends. Exit codes cannot say it: a scheduler gives one code for many processes, and
the same for a rank that crashed as for one that was told to stop. A fit that starts clears it, so that a
finished one has none.
"""

import json
from pathlib import Path

from alens.store import durable
from alens.store.durable import write_errors

MARKER = "stopped.json"


def put(lenses: Path, step: int, steps: int) -> None:
    """Say durably that the fit stopped after `step` of `steps`. Raises `RunError` when the disk refuses."""
    with write_errors(lenses):
        durable.put(lenses / MARKER, (json.dumps({"step": step, "steps": steps}) + "\n").encode())


def clear(lenses: Path) -> None:
    """Take the marker of an earlier run away, if there is one. Raises `RunError` when the disk refuses."""
    with write_errors(lenses):
        durable.remove(lenses / MARKER)
