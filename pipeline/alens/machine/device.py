"""Which device to work on: `auto`, `cpu`, `cuda` or `cuda:N`."""

import re

import torch

from alens.errors import RequestError


def torch_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one, otherwise the CPU.

    Raises `RequestError` for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise RequestError(f"device {name!r} is unknown: take auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise RequestError(f"device {name} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
