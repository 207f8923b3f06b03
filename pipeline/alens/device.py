"""Which device to work on: `auto`, `cpu`, `cuda` or `cuda:N`."""

import torch

from alens.errors import RequestError


def torch_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises `RequestError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"device {name!r} is unknown: take auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise RequestError(f"device {name} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
