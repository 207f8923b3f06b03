"""Which device to work on: `auto`, `cpu`, `cuda` or `cuda:N`; why a GPU of this machine cannot be used; ways to it.

In: a name, or arrays in memory. Out: a device, or tensors there.
"""

import functools
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError

log = logging.getLogger("alens")

GPUS = Path("/dev")
"""Where NVIDIA's driver puts a file for each GPU."""


def torch_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one, otherwise the CPU.

    Raises `RequestError` for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if takes_cuda() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise RequestError(f"device {name!r} is unknown: take auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise RequestError(f"device {name} is not there: {cuda_devices()}")
    return device


def send(values: npt.NDArray[Any] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on a device. To CUDA they go from pinned memory, and the caller does not wait for it."""
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    with torch.cuda.device(device):  # a thread begins on GPU 0, where it would take memory to pin some
        return tensor.pin_memory().to(device, non_blocking=True)


def send_ids(ids: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """The same for token ids, as int64; unsigned ones travel in the 2 or 4 bytes in which they are stored."""
    if ids.dtype not in (np.uint16, np.uint32):
        return send(ids.astype(np.int64), device)
    bits = 8 * ids.itemsize
    signed = send(np.ascontiguousarray(ids).view(f"int{bits}"), device)
    return signed.long().bitwise_and(2**bits - 1)


def takes_cuda() -> bool:
    """Whether `auto` takes CUDA. Where there is a GPU that PyTorch cannot use, the log says so once, and why."""
    if torch.cuda.is_available():
        return True
    if (why := unusable_gpu()) is not None:
        _warn(f"taking the CPU, although this machine has a GPU: {why}, or say --device cpu")
    return False


def cuda_devices() -> str:
    """How many CUDA devices PyTorch sees, and why it sees none of a GPU that is there; for messages."""
    why = unusable_gpu()
    return f"torch sees {torch.cuda.device_count()} CUDA devices" + (f" ({why})" if why else "")


def unusable_gpu() -> str | None:
    """Why PyTorch cannot use a GPU of this machine, and what to install; None where it can, or where none is shown."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or torch.cuda.is_available() or not any(_opens(path) for path in GPUS.glob("nvidia[0-9]*")):
        return None
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built for the CPU alone: install one for CUDA, as pytorch.org says"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        what = str(error)
    else:
        return None
    if (driver := re.search(r"found version (\d+)", what)) is not None:
        major, minor = int(driver[1]) // 1000, int(driver[1]) % 1000 // 10
        return (
            f"its driver supports CUDA {major}.{minor}, and PyTorch {torch.__version__} was built for {torch.version.cuda}: "
            f"install a newer driver, or a PyTorch for CUDA {major}, as pytorch.org says"
        )
    return f"{what.split('. ')[0].strip()}: mend its driver (nvidia-smi must show the GPU)"


def _opens(path: Path) -> bool:
    """Whether this process may use the GPU of this file. A scheduler shows the files of GPUs that it gave to others."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:
        return False
    return True


@functools.cache
def _warn(text: str) -> None:
    log.warning(text)
