"""Which device is taken, and what is said of a GPU that PyTorch cannot use."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from alens.errors import RequestError
from alens.machine import device

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading and "
    "installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a GPU, whose file this process may open, and that PyTorch does not see."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(device, "GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    device._warn.cache_clear()
    return tmp_path / "nvidia0"


def raising(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def init() -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch.cuda, "init", init)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_ids_arrive_whole_whatever_their_dtype(dtype: type[np.integer]) -> None:
    most = min(int(np.iinfo(dtype).max), 2**40)
    ids = np.array([[0, 1], [most - 1, most]], dtype)
    sent = device.send_ids(ids[:, ::-1], torch.device("cpu"))
    assert sent.dtype == torch.int64 and sent.tolist() == [[1, 0], [most, most - 1]]


def test_what_is_sent_to_a_gpu_is_pinned_for_that_gpu_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stand-ins take the place of CUDA's context, its memory and its copy."""
    current, seen = ["cuda:0"], []

    @contextlib.contextmanager
    def on(wanted: torch.device) -> Iterator[None]:
        current.append(str(wanted))
        yield
        current.pop()

    def pin_memory(self: torch.Tensor) -> torch.Tensor:
        seen.append(f"pinned on {current[-1]}")
        return self

    def to(self: torch.Tensor, wanted: torch.device, non_blocking: bool = False) -> torch.Tensor:
        seen.append(f"to {wanted}" + ("" if non_blocking else ", waited for"))
        return self

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    device.send(np.arange(3), torch.device("cuda", 1))
    assert seen == ["pinned on cuda:1", "to cuda:1"]


def test_auto_says_once_that_the_driver_is_too_old_and_what_to_install(
    gpu: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raising(monkeypatch, OLD_DRIVER)
    with caplog.at_level(logging.WARNING, "alens"):
        assert [device.torch_device("auto").type for _ in range(2)] == ["cpu", "cpu"]
    assert [record.message for record in caplog.records] == [
        f"taking the CPU, although this machine has a GPU: its driver supports CUDA 11.4, and PyTorch {torch.__version__} "
        "was built for 13.0: install a newer driver, or a PyTorch for CUDA 11, as pytorch.org says, or say --device cpu"
    ]


def test_a_pytorch_for_the_cpu_alone_is_named(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        RequestError, match=r"device cuda is not there: .*built for the CPU alone: install one"
    ):
        device.torch_device("cuda")


def test_another_fault_of_the_driver_is_said_in_its_own_words(
    gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, "CUDA unknown error - this may be due to an incorrectly set up environment. Setting")
    assert (device.unusable_gpu() or "").startswith(
        "CUDA unknown error - this may be due to an incorrectly set"
    )


@pytest.mark.parametrize("how", ["none", "hidden", "of another job"])
def test_nothing_is_said_where_no_gpu_is_shown(gpu: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    raising(monkeypatch, OLD_DRIVER)
    if how == "hidden":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    else:
        gpu.unlink()
    if how == "of another job":
        gpu.mkdir()  # opening it fails, also for root
    assert device.unusable_gpu() is None
    with pytest.raises(RequestError, match=r"device cuda:1 is not there: torch sees \d CUDA devices$"):
        device.torch_device("cuda:1")


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.torch_device("auto") == torch.device("cuda")
    assert device.torch_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(RequestError, match=r"device cuda:2 is not there: torch sees 2 CUDA devices$"):
        device.torch_device("cuda:2")
    with pytest.raises(RequestError, match="device 'tpu' is unknown"):
        device.torch_device("tpu")
