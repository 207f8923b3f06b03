"""What CUDA refuses, and where it makes the host wait, for one operation and the tensors that it got."""

from collections.abc import Sequence
from typing import Any

import torch

from .transfers import wait
from .waits import place

CPU = torch.device("cpu")

TAKES_TWO_DEVICES = {
    "aten::_to_copy",
    "aten::copy_",
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
}
TAKES_A_SCALAR_OF_THE_CPU = {"aten::fill_", "aten::fill", "aten::masked_fill", "aten::masked_fill_"}
"""Beside the pointwise operations. All take a single number of the CPU, and no other tensor from there."""

WAITS_FOR_THE_GPU = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero", "aten::_unique",
    "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::_linalg_check_errors",
    "aten::_linalg_eigh", "aten::_linalg_svd", "aten::linalg_eig", "aten::linalg_lstsq", "aten::linalg_qr", "aten::multinomial",
}  # fmt: skip
"""Each looks at a value, or makes a result whose length only the GPU knows."""


def one_device(func: Any, name: str, args: Sequence[Any], tensors: Sequence[torch.Tensor]) -> torch.device:
    """The device on which an operation runs. Raises `RuntimeError` where its tensors are on several."""
    if name in TAKES_TWO_DEVICES:
        if "index" in name:
            check_index(name, args)
        return args[0].device
    scalars_may_differ = torch.Tag.pointwise in func.tags or name in TAKES_A_SCALAR_OF_THE_CPU
    devices = {
        tensor.device
        for number, tensor in enumerate(tensors)
        if not (
            scalars_may_differ
            and tensor.dim() == 0
            and tensor.device == CPU
            and not (number == 0 and name.endswith("_"))
        )
    }
    if len(devices) != 1:
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} got {shapes} [pretended, in {place()}]"
        )
    return devices.pop()


def check_index(name: str, args: Sequence[Any]) -> None:
    """Raises `RuntimeError` where indices or values are on a GPU and what they index is not there."""
    indexed = args[0].device
    indices = [index for index in args[1] if index is not None]
    if any(index.device not in (CPU, indexed) for index in indices):
        raise RuntimeError(
            f"indices should be either on cpu or on the same device as the indexed tensor ({indexed}) [in {place()}]"
        )
    if (
        name != "aten::index"
        and args[2].device != indexed
        and not (args[2].dim() == 0 and args[2].device == CPU)
    ):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} got values on {args[2].device} for {indexed} "
            f"[pretended, in {place()}]"
        )
    if indexed.type != "cuda":
        return
    if any(index.device == CPU for index in indices):
        wait("an index from the CPU")
    fills = name != "aten::index" and args[2].numel() == 1 and len(indices) == 1
    if not fills and any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        wait("an index of truth values")


def note_waits(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Notes the wait of an operation that looks at values."""
    if name in WAITS_FOR_THE_GPU:
        wait(name.removeprefix("aten::").strip("_"))
    elif name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
        wait("repeat_interleave without output_size")
