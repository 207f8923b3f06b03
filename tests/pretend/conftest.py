"""Processes with pretended GPUs: `in_child` does a job of `child` and gives what came out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 600
"""Only a process that hangs takes so long."""

Job = dict[str, Any]
Child = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def in_child(tmp_path_factory: pytest.TempPathFactory) -> Child:
    """`in_child(job, ...)`: each job in a process of its own, all at once."""

    def run(*jobs: Job) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("jobs")
        processes = []
        for number, job in enumerate(jobs):
            path = folder / f"{number}.json"
            path.write_text(json.dumps(job, default=str))
            command = [sys.executable, "-m", "tests.pretend.child", str(path)]
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=CHECKOUT,
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        for process in processes:
            said, _ = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 0, said
        return [json.loads((folder / f"{number}.out.json").read_text()) for number in range(len(jobs))]

    return run
