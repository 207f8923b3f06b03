"""One process or many: the environment must be whole, and the device there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deepspeed import comm, ops

from alens import FitRequest, FitSettings, fit_lenses
from alens.errors import DamageError, RequestError, RunError
from alens.fit import distributed, launch

from .. import ports

WHOLE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in launch.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_one_process_runs_alone() -> None:
    processes = distributed.join("cpu")
    assert (processes.rank, processes.world_size, processes.first) == (0, 1, True)
    assert processes.device == torch.device("cpu")


def test_what_deepspeed_prints_is_not_among_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints where it cannot probe an op, as on a machine with a GPU but without CUDA's compiler."""
    probe = ops._probe_compatible_ops

    def printing() -> object:
        print("[WARNING] not compatible")
        return probe()

    monkeypatch.delitem(
        vars(ops), "__compatible_ops__", raising=False
    )  # probed once, when it is first asked for
    monkeypatch.setattr(ops, "_probe_compatible_ops", printing)
    distributed.join("cpu")
    out, err = capsys.readouterr()
    assert out == "" and "[WARNING] not compatible" in err


@pytest.mark.parametrize("missing", launch.VARIABLES)
def test_a_half_set_environment_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in launch.VARIABLES:
        if name != missing:
            monkeypatch.setenv(name, WHOLE[name])
    with pytest.raises(RequestError, match=f"but not {missing}: start with torchrun"):
        distributed.join("cpu")


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_variable_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for key, value in {**WHOLE, name: "two"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RequestError, match=name):
        distributed.join("cpu")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(RequestError, match="device 'tpu' is unknown: take auto, cpu or cuda"):
        distributed.join("tpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {**WHOLE, "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RequestError, match="no GPU for LOCAL_RANK 99: torch sees"):
        distributed.join("cuda")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_process_takes_the_gpu_of_its_local_rank_or_the_only_one_that_it_sees(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm with --gpu-bind or --tres-per-task shows each process its own GPU alone, as the first."""
    assert distributed._device("cuda", 1) == torch.device("cuda", 1)
    with pytest.raises(RequestError, match="no GPU for LOCAL_RANK 2: torch sees 2 CUDA devices"):
        distributed._device("auto", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert distributed._device("cuda", 1) == torch.device("cuda", 0)


def test_a_fit_on_cuda_after_one_on_the_cpu_in_the_same_process_is_refused(
    two_gpus: None, demo_cache: Path, tmp_path: Path
) -> None:
    """DeepSpeed keeps the device that it chose, and would move the lenses back to the CPU."""
    distributed.join("cpu")
    with pytest.raises(RequestError, match=r"DeepSpeed works on cpu in this process .* this fit is on cuda"):
        fit_lenses(FitRequest(store=demo_cache, lenses=tmp_path / "lenses", device="cuda"))


ON_CUDA = """
import os, torch
from alens.fit.distributed import join

def end(device):
    from deepspeed.accelerator import get_accelerator
    raise SystemExit(f"{device}, and DeepSpeed on {get_accelerator().device_name()} {os.environ['LOCAL_RANK']}")

torch.cuda.is_available, torch.cuda.device_count, torch.cuda.set_device = lambda: True, lambda: 1, end
join("cuda")
"""


def test_what_the_environment_says_to_deepspeed_does_not_count() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_CUDA],
        env={**os.environ, **WHOLE, "LOCAL_RANK": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == "cuda:0, and DeepSpeed on cuda 0"


def test_at_its_end_a_fit_leaves_its_group(demo_cache: Path, tmp_path: Path) -> None:
    """A group that is left open is warned of by NCCL, and would be that of the next fit, whatever its device."""
    if torch.distributed.is_initialized():
        comm.destroy_process_group()  # which another test joined
    settings = FitSettings(layers=(1,), heads="1.0", steps=2, batch_rows=64, eval_rows=1024)
    for name in ("lenses", "others"):
        fit_lenses(FitRequest(store=demo_cache, lenses=tmp_path / name, settings=settings, device="cpu"))
        assert not torch.distributed.is_initialized()


def test_alone_the_collective_operations_change_nothing() -> None:
    processes = distributed.Processes(rank=0, world_size=1, device=torch.device("cpu"))
    assert processes.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert processes.any(True) and not processes.any(False)


def test_alone_what_is_raised_is_raised() -> None:
    processes = distributed.Processes(rank=0, world_size=1, device=torch.device("cpu"))

    def fail() -> None:
        raise DamageError("a flipped byte")

    processes.first_does(lambda: None)
    with pytest.raises(DamageError, match="a flipped byte"):
        processes.first_does(fail)


TOGETHER = """
from alens import errors
from alens.fit.distributed import join

processes = join("cpu")
done = []
processes.first_does(lambda: done.append(True))
assert len(done) == (processes.rank == 0)

def fail(error):
    raise error

kinds = (errors.RequestError, errors.DamageError, errors.RunError, errors.StoppedError, ValueError)
for kind in kinds:
    try:
        processes.first_does(lambda: fail(kind("dépôt")))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_what_process_0_raises_is_raised_by_all() -> None:
    """No process waits at a barrier that process 0 never reaches."""
    names = ("RequestError", "DamageError", "RunError", "StoppedError")
    with ports.leased() as free:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", TOGETHER],
                env={
                    **os.environ,
                    **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
                    **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(free[0])},
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        said = [process.communicate(timeout=300) for process in processes]
    for rank, last in enumerate(("ValueError dépôt", "RunError process 0 has failed: its own lines say why")):
        lines = [line for line in said[rank][0].splitlines() if "Error " in line]
        assert lines == [*(f"{name} dépôt" for name in names), last], said[rank][1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[/src/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:10648: Connection reset by peer. This is typical",
            "(Read error [127.0.0.1]:10648: Connection reset by peer)",
        ),
        (
            "[/src/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv",
            "(Timed out waiting",
        ),
        ("NCCL communicator was aborted on rank 1.", "(NCCL communicator was aborted on rank 1.)"),
    ],
)
def test_a_lost_process_is_one_line(text: str, says: str) -> None:
    with pytest.raises(RunError) as caught, distributed.lost_processes(2):
        raise RuntimeError(text)
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith("run again to go on from the last checkpoint")


@pytest.mark.parametrize(("text", "world_size"), [("expected scalar type Half", 2), ("gloo", 1)])
def test_other_errors_are_what_they_were(text: str, world_size: int) -> None:
    with pytest.raises(RuntimeError, match=text) as caught, distributed.lost_processes(world_size):
        raise RuntimeError(text)
    assert not isinstance(caught.value, RunError)
