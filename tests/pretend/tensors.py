"""Tensors that say they are on a GPU, compute on the CPU, and refuse what CUDA refuses.

PyTorch's own code, below Python, takes them for tensors on the CPU, so autograd and every operation work as they do
there and give the same numbers. Python sees `cuda:0`. Each operation passes `PretendTensor.__torch_dispatch__`, which
refuses tensors of several devices and notes the waits.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map

from .rules import CPU, note_waits, one_device
from .transfers import PINNED, TRANSFERS, wait


class PretendTensor(torch.Tensor):
    """A tensor on the pretended GPU `device`; its numbers are those of `inner`, on the CPU."""

    inner: torch.Tensor
    _place: torch.device
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type["PretendTensor"], inner: torch.Tensor, device: torch.device) -> "PretendTensor":
        assert not isinstance(inner, PretendTensor) and device.index is not None
        with torch.inference_mode(False):  # views of a normal tensor are normal ones, in inference mode too
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=CPU,
            )
        made.inner, made._place = inner.detach(), device
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    # What Python asks a tensor of.

    @property
    def device(self) -> torch.device:
        return self._place

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, values: "PretendTensor") -> None:
        torch.Tensor.data.__set__(self, values)
        self.inner, self._place = values.inner, values._place

    def get_device(self) -> int:
        return int(self._place.index)

    def is_pinned(self, *_: Any, **__: Any) -> bool:
        return False

    def pin_memory(self, *_: Any) -> torch.Tensor:
        raise RuntimeError(f"cannot pin {self.dtype} of {self.device}: only dense CPU tensors can be pinned")

    def record_stream(self, _: Any) -> None:
        pass

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.inner!r}, {self.device})"

    def __format__(self, how: str) -> str:
        return self.item().__format__(how) if self.dim() == 0 else object.__format__(self, how)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = type(self)(copy.deepcopy(self.inner), self._place).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    # Ways to the CPU.

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy: use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        wait("tolist")
        return self.inner.tolist()

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return moved(self, *args, **kwargs)

    def cpu(self, *_: Any) -> torch.Tensor:
        return moved(self, CPU)

    def cuda(self, device: Any = None, non_blocking: bool = False) -> torch.Tensor:
        return moved(self, "cuda" if device is None else device, non_blocking=non_blocking)

    def type_as(self, other: torch.Tensor) -> torch.Tensor:
        return moved(self, other)

    # Lists and arrays as indices are sent to the GPU.

    def __getitem__(self, index: Any) -> torch.Tensor:
        return torch.Tensor.__getitem__(self, sent(index, self._place))

    def __setitem__(self, index: Any, value: Any) -> None:
        torch.Tensor.__setitem__(self, sent(index, self._place), value)


def inner(value: Any) -> Any:
    """The tensor on the CPU below a pretended one; anything else as it is."""
    return value.inner if isinstance(value, PretendTensor) else value


def named(device: Any) -> torch.device:
    """The device of this name; `cuda` is the current one."""
    chosen = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return CPU if chosen.type == "cpu" else chosen


def sent(index: Any, device: torch.device) -> Any:
    """An index in which lists and arrays are tensors of the device."""
    if isinstance(index, tuple):
        return tuple(sent(part, device) for part in index)
    if not isinstance(index, list | np.ndarray):
        return index
    made = torch.as_tensor(np.asarray(index))
    return moved(made.long() if made.dtype != torch.bool else made, device)


class Move(torch.autograd.Function):
    """A move between devices that gradients can go back."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        ctx.came_from = tensor.device, tensor.dtype
        return transferred(tensor.detach(), *args)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        device, dtype = ctx.came_from
        return transferred(gradient, device, dtype, False), None, None, None


def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`tensor.to(...)`, with what PyTorch takes there."""
    again = kwargs.pop("copy", False)
    if args and isinstance(args[0], torch.Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    to = tensor.device if device is None else named(device)
    dtype = tensor.dtype if dtype is None else dtype
    if to == tensor.device:
        return torch.Tensor.to(tensor, dtype, copy=again)
    if "cuda" not in (to.type, tensor.device.type):
        return torch.Tensor.to(tensor, to, dtype, copy=again)
    if tensor.requires_grad and torch.is_grad_enabled():
        result: torch.Tensor = Move.apply(tensor, to, dtype, non_blocking)
        return result
    return transferred(tensor.detach(), to, dtype, non_blocking)


def transferred(
    tensor: torch.Tensor, to: torch.device, dtype: torch.dtype, non_blocking: bool
) -> torch.Tensor:
    """A copy on another device."""
    with torch.inference_mode(False):
        values = inner(tensor).to(dtype, copy=True)
    if tensor.device.type == to.type == "cuda":
        return PretendTensor(values, to)
    if to.type == "cuda":
        arrives_at_the_gpu(to, tensor, non_blocking)
        return PretendTensor(values, to)
    if to.type != "cpu":
        raise NotImplementedError(f"a pretended GPU cannot copy to {to}")
    if not non_blocking:
        wait("a copy to the CPU")
        return values
    target = PINNED.empty(values.shape, dtype)  # PyTorch pins the target of such a copy
    TRANSFERS.download(tensor.device, target, values)
    return target


def arrives_at_the_gpu(device: torch.device, tensor: torch.Tensor, non_blocking: bool) -> None:
    """Notes the wait, if one is needed, of a copy from the CPU."""
    if not non_blocking:
        wait("a copy to the GPU")
    elif not PINNED.holds(tensor):
        wait("a copy to the GPU from memory that is not pinned")
    else:
        TRANSFERS.upload(device, tensor)


def arrives_at_the_cpu(target: torch.Tensor, values: PretendTensor, non_blocking: bool) -> None:
    """Copies to memory of the CPU."""
    if non_blocking and PINNED.holds(target):
        TRANSFERS.download(values.device, target, values.inner)
        return
    wait("a copy to memory that is not pinned" if non_blocking else "a copy to the CPU")
    target.copy_(values.inner)


def computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of an operation that got at least one pretended tensor. Raises what CUDA would raise."""
    name = func._schema.name
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    device = one_device(func, name, args, tensors)
    if name == "aten::copy_":
        return copied(*args, **kwargs)
    note_waits(name, args, kwargs)
    with torch.inference_mode(False), torch.no_grad():
        result = func(
            *tree_map(inner, tuple(args)), **{key: tree_map(inner, value) for key, value in kwargs.items()}
        )
    if torch.Tag.inplace_view in func.tags:
        return reshaped(func, *args, **kwargs)
    if device.type == "cpu":
        return given_back(func, args, kwargs, result, lambda tensor: tensor)
    return given_back(func, args, kwargs, result, lambda tensor: PretendTensor(tensor, device))


def given_back(
    func: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    result: Any,
    wrapped: Callable[[torch.Tensor], Any],
) -> Any:
    """The result with pretended tensors in it; an operation that writes gives back what it wrote to."""
    written = {
        id(inner(value)): value
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        for value in tree_flatten(args[number] if number < len(args) else kwargs.get(argument.name))[0]
        if isinstance(value, torch.Tensor)
    }

    def back(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        target = written.get(id(value))
        return wrapped(value) if target is None or target.shape != value.shape else target

    return tree_map(back, result)


def reshaped(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`squeeze_` and the like, which `inner` has gone through already: the shape that PyTorch sees follows."""
    python = torch._C.DispatchKeySet(torch._C.DispatchKey.Python)
    with torch._C._ExcludeDispatchKeyGuard(python):
        func(tensor, *args, **kwargs)
    return tensor


def copied(target: torch.Tensor, values: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """`copy_` within and between devices."""
    if target.device.type == values.device.type:
        inner(target).copy_(inner(values))
    elif target.device.type == "cuda":
        arrives_at_the_gpu(target.device, values, non_blocking)
        inner(target).copy_(inner(values))
    else:
        arrives_at_the_cpu(target, values, non_blocking)
    return target
