"""A process with pretended GPUs: `python -m tests.pretend.child JOB.json`.

In: a job, with the number of GPUs (0: none is pretended), and either commands of alens by name or names of checks, which
are functions of `checks`. Out: beside it, `JOB.out.json`: for each command its exit code, what it printed, and the waits
in it, `[place, what, count]`; for each check None, or its traceback.
"""

import contextlib
import io
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from alens import cli

from . import checks, cuda
from .waits import WAITS


def main() -> None:
    """Do the job."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    torch.set_num_threads(1)
    if job["gpus"]:
        cuda.pretend(job["gpus"])
    done = {name: ran(arguments) for name, arguments in job.get("commands", {}).items()}
    done |= {name: checked(name) for name in job.get("checks", [])}
    path.with_suffix(".out.json").write_text(json.dumps(done))


def ran(arguments: list[str]) -> dict[str, Any]:
    """One command. Memory and random numbers are those of a new process; what was imported stays."""
    torch.manual_seed(0)
    WAITS.counts.clear()
    out, err, start = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.run(arguments)
        except Exception:
            code = -1
            traceback.print_exc(file=err)
    return {
        "code": code,
        "stdout": out.getvalue(),
        "stderr": err.getvalue(),
        "waits": [[*key, count] for key, count in sorted(WAITS.counts.items())],
        "cpu_s": time.process_time() - start,
    }


def checked(name: str) -> str | None:
    """The traceback of a check that fails."""
    WAITS.set_mode("default")
    try:
        getattr(checks, name)()
    except Exception:
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    main()
