"""One process or many: the environment must be whole, and the device there."""

import pytest
import torch

from alens.errors import RequestError
from alens.fit import distributed

WHOLE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_one_process_runs_alone() -> None:
    processes = distributed.join("cpu")
    assert (processes.rank, processes.world_size, processes.first) == (0, 1, True)
    assert processes.device == torch.device("cpu")


@pytest.mark.parametrize("missing", distributed.VARIABLES)
def test_a_half_set_environment_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in distributed.VARIABLES:
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


def test_alone_the_collective_operations_change_nothing() -> None:
    processes = distributed.Processes(rank=0, world_size=1, device=torch.device("cpu"))
    assert processes.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert processes.any(True) and not processes.any(False)
    processes.wait()
