"""Threads of everything that computes follow the job's CPUs, and sleep while they wait."""

import os
import subprocess
import sys

import pytest


def test_torch_zarr_and_the_tokenizer_are_told() -> None:
    script = (
        "import os, torch, zarr; from alens.machine.threads import follow_allotment; n = follow_allotment();"
        "print(n, torch.get_num_threads(), zarr.config.get('threading.max_workers'), os.environ['RAYON_NUM_THREADS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "1", "1", "1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")],
)
def test_threads_of_a_command_sleep_soon_while_they_wait(given: dict[str, str], expected: str) -> None:
    """libgomp reads the environment once, when torch is imported, and says then how often its threads will spin."""
    script = "import sys; sys.argv[1:] = ['fit', '--help']; from alens.cli import main; import atexit; atexit.register(__import__, 'torch'); main()"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
