"""A fit in other processes: several under torchrun, and one that is stopped or killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alens import FitRequest, fit_lenses
from alens.errors import StoppedError
from alens.fit.settings import FitSettings

from ..stops import Stop

LIMIT_S = 400
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

STOPPED_FIT = """
import os
import sys
from pathlib import Path
from alens import FitRequest, fit_lenses
from alens.errors import StoppedError
from alens.fit.settings import FitSettings

done = asked = 0


def report(progress):
    global done
    if progress.unit == "steps":
        done = progress.done


def should_stop():
    # Only the second process is asked, after 9 steps, in the midst of the tenth.
    global asked
    asked += os.environ["RANK"] == "1" and done >= 9
    return asked > 3


try:
    fit_lenses(
        FitRequest(
            store=Path(sys.argv[1]), lenses=Path(sys.argv[2]), zero=int(sys.argv[3]), device="cpu",
            settings=FitSettings(steps=20, batch_rows=128, eval_rows=512),
        ),
        report=report,
        should_stop=should_stop,
    )
except StoppedError:
    print("stopped")
"""

PADDED_STATE = """
import torch
from alens.fit.distributed import join
from alens.fit.engine import Engine
from alens.fit.lens_module import LensModule
from alens.fit.objectives.forward_kl import ForwardKL
from alens.lens.designs.design import Ground
from alens.lens.designs.linear import Linear
from alens.lens.whitening import Whitening

processes = join("cpu")
unit = Whitening(mean_HE=torch.zeros(1, 3), scale_HEE=torch.eye(3)[None])
ground = Ground(whitening=unit, log_mean_output_V=torch.zeros(17))
module = LensModule({0: Linear(ground)}, ForwardKL())  # 17 and 51: odd
engine = Engine(module, processes, zero=3, batch_rows=4, lr=0.1)
engine.start()
random = torch.Generator().manual_seed(0)
state = {name: torch.rand(value.shape, generator=random) for name, value in engine.state().items()}
engine.restore(state, 5)
restored = engine.state()
assert all(torch.equal(restored[name], state[name]) for name in state)
average = engine.averages()["designs.0.weight"]
assert torch.equal(average, state["designs.0.weight/average"])
print("restored")
"""


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def fit(store: Path, lenses: Path, steps: int = 20, zero: int = 0, stop: int = 10**9) -> None:
    """Fit in this process, alone."""
    asked = Stop(stop)
    settings = FitSettings(steps=steps, batch_rows=128, eval_rows=512)
    request = FitRequest(store=store, lenses=lenses, settings=settings, zero=zero, device="cpu")
    fit_lenses(request, report=asked.report, should_stop=asked)


def command(store: Path, lenses: Path, steps: int = 20) -> list[str]:
    """Fit the same on the command line."""
    sizes = ["--steps", str(steps), "--batch-rows", "128", "--eval-rows", "512", "--device", "cpu"]
    return ["-m", "alens", "fit", str(store), str(lenses), *sizes]


def difference(a: Path, b: Path) -> float:
    """The largest difference, relative to the largest weight."""
    tensors, expected = (load_file(lenses / "layer-00.safetensors") for lenses in (a, b))
    return max(
        float((tensors[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in expected
    )


@pytest.mark.parametrize(
    "zero",
    [0, pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)],
)
def test_two_processes_give_the_lenses_of_one(planted_store: Path, tmp_path: Path, zero: int) -> None:
    done = python(*TORCHRUN, *command(planted_store, tmp_path / "two"), "--zero", zero)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 lenses in") == 1  # one process speaks for all
    fit(planted_store, tmp_path / "one")
    assert difference(tmp_path / "two", tmp_path / "one") < 1e-5


@pytest.mark.parametrize("zero", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_what_two_processes_saved_one_process_goes_on_with(
    planted_store: Path, tmp_path: Path, zero: int
) -> None:
    (tmp_path / "stopped_fit.py").write_text(STOPPED_FIT)
    done = python(*TORCHRUN, tmp_path / "stopped_fit.py", planted_store, tmp_path / "stopped", zero)
    assert done.stdout.count("stopped") == 2, done.stderr
    assert [p.name for p in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-00000009"]
    fit(planted_store, tmp_path / "stopped")
    fit(planted_store, tmp_path / "undisturbed")
    assert difference(tmp_path / "stopped", tmp_path / "undisturbed") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_what_one_process_saved_two_processes_go_on_with(
    planted_store: Path, tmp_path: Path, zero: int
) -> None:
    with pytest.raises(StoppedError):
        fit(planted_store, tmp_path / "stopped", stop=9)
    done = python(*TORCHRUN, *command(planted_store, tmp_path / "stopped"), "--zero", zero)
    assert done.returncode == 0, done.stderr
    assert "going on after step 9 of 20" in done.stderr
    fit(planted_store, tmp_path / "undisturbed")
    assert difference(tmp_path / "stopped", tmp_path / "undisturbed") < 1e-5


@pytest.mark.slow
def test_zero_3_takes_up_a_state_whose_parts_are_padded(tmp_path: Path) -> None:
    (tmp_path / "padded_state.py").write_text(PADDED_STATE)
    done = python(*TORCHRUN, tmp_path / "padded_state.py")
    assert done.stdout.count("restored") == 2, done.stderr


@pytest.fixture
def running(planted_store: Path, tmp_path: Path, held_alens: Any) -> Any:
    """A fit of 400 steps that has saved its first checkpoints."""
    arguments = command(planted_store, tmp_path / "lenses", 400)
    return held_alens(tmp_path / "lenses", "checkpoints/step-*", *arguments[2:], "--checkpoint-every", "20")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGKILL, -9)]
)
def test_stopped_or_killed_it_ends_bit_for_bit_as_if_undisturbed(
    running: Any, planted_store: Path, tmp_path: Path, number: int, code: int
) -> None:
    running.send_signal(number)
    _, stderr = running.communicate(timeout=LIMIT_S)
    assert running.returncode == code, stderr
    assert code != 75 or stderr.splitlines()[-1].startswith("alens: stopped after step ")
    assert not (tmp_path / "lenses" / "lens.json").exists()
    fit(planted_store, tmp_path / "lenses", steps=400)
    fit(planted_store, tmp_path / "undisturbed", steps=400)
    assert difference(tmp_path / "lenses", tmp_path / "undisturbed") == 0
    assert not (tmp_path / "lenses" / "checkpoints").exists()
