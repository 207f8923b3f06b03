"""A pretended GPU for this process: `torch.cuda` says that it is there, and tensors that are sent to it stay on the CPU.

It is never taken back, so it is for a process of its own: `run_commands` is one.
"""

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from .rules import CPU
from .tensors import PretendTensor, moved, named
from .transfers import PINNED, TRANSFERS, wait
from .waits import WAITS

GPU_BYTES = 80 * 2**30
CAPABILITY = (9, 0)
"""That of an H100."""


class PretendMode(TorchFunctionMode):
    """What Python asks PyTorch for, so far as a GPU matters before there is a pretended tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if isinstance(func, torch._ops.OpOverload):  # called by the other mode, or by PyTorch
            return func(*args, **kwargs)
        if (handler := HANDLERS.get(func)) is not None:
            return handler(*args, **kwargs)
        if func in CONSTRUCTORS:
            with _disable_current_modes():
                return constructed(func, args, kwargs)
        with made_beside(gpu_of(args)):
            return self._other(func, args, kwargs)

    @staticmethod
    def _other(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("device") is not None:  # zeros_like, new_empty and the like
            device = named(kwargs.pop("device"))
            if device.type not in ("cpu", "cuda"):
                return func(*args, **kwargs, device=device)
            return relocated(func(*args, **kwargs), device)
        return func(*args, **kwargs)


class MadeBesideMode(TorchDispatchMode):
    """Code below Python makes tensors on the device of those that it got. Seen from there that is the CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not isinstance(made, PretendTensor):
            takes_none = not any(isinstance(value, torch.Tensor) for value in tree_leaves((args, kwargs)))
            if takes_none and any(argument.name == "device" for argument in func._schema.arguments):
                return PretendTensor(made, self._device)
        return made


def gpu_of(values: Iterable[Any]) -> torch.device | None:
    """The device of the first pretended tensor among values, also in lists of them; None where there is none."""
    for value in values:
        if isinstance(value, PretendTensor):
            return value.device
        if isinstance(value, list | tuple) and (device := gpu_of(value)) is not None:
            return device
    return None


def made_beside(device: torch.device | None) -> contextlib.AbstractContextManager[Any]:
    """Within the block, what code below Python makes is on the device; None: on the CPU."""
    return contextlib.nullcontext() if device is None else MadeBesideMode(device)


CONSTRUCTORS = _device_constructors()


def constructed(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
    """A new tensor on the device that was asked for."""
    device = CPU if kwargs.get("device") is None else named(kwargs["device"])
    pins = bool(kwargs.pop("pin_memory", False))
    if func in (torch.tensor, torch.as_tensor, torch.asarray):
        return taken(func, args, kwargs, device)
    requires_grad = kwargs.pop("requires_grad", False)
    if device.type == "cuda":
        if pins:
            raise RuntimeError("Only dense CPU tensors can be pinned")
        made: torch.Tensor = PretendTensor(func(*args, **{**kwargs, "device": CPU}), device)
    else:
        made = func(*args, **kwargs)
        made = pinned(made) if pins else made
    return made.requires_grad_(requires_grad)


def taken(func: Any, args: Any, kwargs: dict[str, Any], device: torch.device) -> torch.Tensor:
    """A tensor of values that Python, NumPy or another tensor has. They are sent to a GPU, which is waited for."""
    asked = kwargs.pop("device", None) is not None
    values = args[0] if args else kwargs["data"]
    if isinstance(values, PretendTensor) and func is not torch.tensor:
        return moved(values, device if asked else values.device, kwargs.get("dtype"))
    if isinstance(values, PretendTensor):
        return moved(values.detach().clone(), device if asked else values.device, kwargs.get("dtype"))
    made: torch.Tensor = func(*args, **kwargs)
    return moved(made, device)


def relocated(made: Any, device: torch.device) -> Any:
    """A tensor that was just made beside another, on the device that was asked for: no copy, no wait."""
    if not isinstance(made, torch.Tensor) or made.device == device:
        return made
    values = made.inner if isinstance(made, PretendTensor) else made.detach()
    result = PretendTensor(values, device) if device.type == "cuda" else values
    return result.requires_grad_(made.requires_grad)


def pinned(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    """A copy in pinned memory; a tensor that is there already as it is."""
    if PINNED.holds(tensor):
        return tensor
    return PINNED.empty(tensor.shape, tensor.dtype).copy_(tensor.detach())


def to_gpu(tensor: torch.Tensor, device: Any = None, non_blocking: bool = False, **_: Any) -> torch.Tensor:
    """`tensor.cuda(...)`."""
    return moved(tensor, "cuda" if device is None else device, non_blocking=non_blocking)


def method(name: str, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`otherwise` for a tensor of the CPU; the method of this name for a pretended one."""

    @functools.wraps(otherwise)
    def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensor, PretendTensor):
            return getattr(PretendTensor, name)(tensor, *args, **kwargs)
        return otherwise(tensor, *args, **kwargs)

    return call


def set_data(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """`tensor.data = values`."""
    if isinstance(values, PretendTensor) and not isinstance(tensor, PretendTensor):
        raise NotImplementedError("a tensor of the CPU cannot become a pretended one: make a new one")
    torch.Tensor.data.__set__(tensor, values)


HANDLERS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.to: moved,
    torch.Tensor.cuda: to_gpu,
    torch.Tensor.type_as: moved,
    torch.Tensor.data.__set__: set_data,
    torch.Tensor.pin_memory: method("pin_memory", pinned),
    torch.Tensor.is_pinned: method("is_pinned", lambda tensor, *_: PINNED.holds(tensor)),
}


class Current(threading.local):
    """The current device of a thread."""

    index = 0


CURRENT = Current()


class CurrentDevice:
    """`torch.cuda.device(...)`: the current device within the block."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __enter__(self) -> None:
        self._before = CURRENT.index
        set_device(self._device)

    def __exit__(self, *_: Any) -> None:
        CURRENT.index = self._before


def set_device(device: Any) -> None:
    """`torch.cuda.set_device`."""
    chosen = named(device)
    if chosen.type != "cuda" or chosen.index >= torch.cuda.device_count():
        raise RuntimeError(f"invalid device ordinal: {device}")
    CURRENT.index = chosen.index


class PretendEvent:
    """A mark in the work of the device that is current when it is recorded."""

    def __init__(self, **_: Any) -> None:
        self._mark: tuple[torch.device, int] | None = None

    def record(self, *_: Any) -> None:
        """The mark stands behind all copies that were begun."""
        self._mark = (torch.device("cuda", CURRENT.index), TRANSFERS.begun)

    def synchronize(self) -> None:
        """The host waits until the device comes to the mark."""
        WAITS.note("an event", refusable=False)
        if self._mark is not None:
            TRANSFERS.arrive(*self._mark)

    def wait(self, *_: Any) -> None:
        """A stream waits: here all work of a device is in one order."""

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "PretendEvent") -> float:
        return 1.0


class PretendStream:
    """A stream. All work is done in the order in which the host asks for it, so streams have nothing to wait for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.cuda_stream = 0

    def wait_stream(self, _: "PretendStream") -> None:
        pass

    def wait_event(self, _: PretendEvent) -> None:
        pass

    def record_event(self, event: PretendEvent | None = None) -> PretendEvent:
        event = event or PretendEvent()
        event.record()
        return event

    def synchronize(self) -> None:
        wait("a stream", refusable=False)


def pretend(num_gpus: int = 1) -> None:
    """From now on this process has so many pretended GPUs, in this thread and in those that it starts."""
    nothing = contextlib.nullcontext
    stand_ins: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "device_count": lambda: num_gpus,
        "current_device": lambda: CURRENT.index,
        "set_device": set_device,
        "device": CurrentDevice,
        "device_of": lambda tensor: (
            CurrentDevice(tensor.device) if tensor.device.type == "cuda" else nothing()
        ),
        "synchronize": lambda *_: wait("the whole device", refusable=False),
        "Event": PretendEvent,
        "Stream": PretendStream,
        "stream": nothing,
        "current_stream": PretendStream,
        "default_stream": PretendStream,
        "set_sync_debug_mode": WAITS.set_mode,
        "get_sync_debug_mode": lambda: ("default", "warn", "error").index(WAITS.mode),
        "mem_get_info": lambda *_: (GPU_BYTES - 2**30, GPU_BYTES),
        "get_device_properties": lambda *_: types.SimpleNamespace(
            total_memory=GPU_BYTES, multi_processor_count=132
        ),
        "memory_allocated": lambda *_: 2**30,
        "max_memory_allocated": lambda *_: 2**30,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
        "get_device_capability": lambda *_: CAPABILITY,
        "get_device_name": lambda *_: "a pretended GPU",
        "is_bf16_supported": lambda *_, **__: True,
    }
    for name, stand_in in stand_ins.items():
        setattr(torch.cuda, name, stand_in)
    for name in ("range_push", "range_pop", "mark"):
        setattr(torch.cuda.nvtx, name, lambda *_: None)
    _new_parameters_on_another_device()
    _pretend_in_new_threads()
    _pretend_nccl()
    _pretend_in_gradients()
    PretendMode().__enter__()


def _pretend_in_new_threads() -> None:
    """A mode is a thread's own."""
    begin = threading.Thread._bootstrap_inner

    def begin_pretending(thread: threading.Thread) -> None:
        with PretendMode():
            begin(thread)

    threading.Thread._bootstrap_inner = begin_pretending


def _pretend_nccl() -> None:
    """What NCCL does for one process: gloo with tensors of the CPU."""
    begin = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend, **how: begin("gloo", **how)


def _pretend_in_gradients() -> None:
    """PyTorch leaves a mode in `backward` and `grad`, and operations of one's own may have Python there."""
    run = torch.autograd._engine_run_backward

    def run_pretending(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        with PretendMode(), made_beside(gpu_of(outputs)):
            return run(outputs, *args, **kwargs)

    torch.autograd._engine_run_backward = run_pretending


def _new_parameters_on_another_device() -> None:
    """A parameter of the CPU that `Module.to` sends to a GPU becomes a new one; CUDA keeps it, with other memory."""
    alike = torch._has_compatible_shallow_copy_type

    @functools.wraps(alike)
    def alike_here(tensor: torch.Tensor, other: torch.Tensor) -> bool:
        return isinstance(tensor, PretendTensor) == isinstance(other, PretendTensor) and alike(tensor, other)

    torch._has_compatible_shallow_copy_type = alike_here
