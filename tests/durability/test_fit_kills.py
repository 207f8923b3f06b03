"""kill -9 at random moments of a fit, again and again until it is done: its lenses are those of an undisturbed one.

Fits are forked from a process that has imported everything, so that kills fall into the work: steps, held-out losses,
checkpoints, the files at the end.
"""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SEED = 21
STEPS = 240
OPTIONS = [
    "--layers", "1", "--heads", "0,3", "--steps", str(STEPS), "--batch-rows", "64", "--eval-rows", "512",
    "--checkpoint-every", "9", "--tolerance", "0.02", "--device", "cpu",
]  # fmt: skip


def fitted(parent: Any, store: Path, lenses: Path, log: Path, kill_after_s: float | None = None) -> int:
    """The exit code of one run, killed at a moment unless it was done by then."""
    pid = parent.start(["fit", str(store), str(lenses), *OPTIONS], log)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)  # not yet waited for, so that the number is still its own
    return parent.wait(pid)


def contents(lenses: Path) -> dict[str, Any]:
    return {f"{file.name}/{name}": value for file in sorted(lenses.glob("*.safetensors")) for name, value in load_file(file).items()}  # fmt: skip


@pytest.mark.slow
def test_a_fit_that_is_killed_again_and_again(warm_parent: Any, demo_cache: Path, tmp_path: Path) -> None:
    """As many fits as it takes until three kills fell into the work and a run went on after a checkpoint."""
    undisturbed, log = tmp_path / "undisturbed", tmp_path / "log"
    began = time.monotonic()
    assert fitted(warm_parent, demo_cache, undisturbed, log) == 0, log.read_text()
    pace_s = time.monotonic() - began
    expected = contents(undisturbed)
    draw = random.Random(SEED)
    fell = fits = 0
    while fell < 3 or "going on after step" not in log.read_text():
        lenses, runs = tmp_path / f"lenses-{fits}", 0
        fits += 1
        # A kill before the first checkpoint throws a run back: the moments grow until the fit gets through.
        while not (lenses / "lens.json").exists():
            after_s = draw.uniform(0.1, 0.6 + 0.02 * runs) * pace_s
            code = fitted(warm_parent, demo_cache, lenses, log, after_s)
            assert code in (0, -signal.SIGKILL), log.read_text()
            runs, fell = runs + 1, fell + (code != 0)
        if runs == 1:  # it was over before it was killed: the machine has become faster
            pace_s /= 2
        assert fitted(warm_parent, demo_cache, lenses, log) == 0, log.read_text()
        actual = contents(lenses)
        assert actual.keys() == expected.keys()
        assert [name for name in expected if not actual[name].equal(expected[name])] == []
        assert not (lenses / "checkpoints").exists() and not (lenses / "stopped.json").exists()
        assert not list(lenses.rglob("*.partial"))
