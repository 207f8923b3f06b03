"""The processes of a fit, one or many, as a group, with the few collective operations that a fit needs.

In: the environment of the launcher (`fit.launch`). Out: `Processes`. torch starts the group over the store where the
processes have met (nccl on CUDA, gloo on the CPU), and DeepSpeed takes the group as it is.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from alens.errors import AlensError, DamageError, RequestError, RunError, StoppedError
from alens.fit.launch import this_launch
from alens.fit.rendezvous import meet
from alens.job.progress import ShouldStop, never
from alens.machine.device import cuda_devices, takes_cuda

LOOPBACK = "lo"
"""The network interface that is used when all processes are on this host."""

COLLECTIVE_S = 1800.0
"""How long processes may wait for each other during a fit, as they do while rank 0 writes a checkpoint."""

SOURCE = re.compile(r"^\[.*?\] ?")
"""What gloo puts before its messages: a line of its own source."""

KINDS: tuple[type[AlensError], ...] = (RequestError, DamageError, RunError, StoppedError)
"""The kinds of errors that rank 0 tells to the others, by number."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes of a fit, seen from one of them."""

    rank: int
    world_size: int
    device: torch.device
    begun: bool = False
    """Whether `join` started the group, which `leaving` ends then."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that writes."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, in place."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any process: so that all stop at the same step."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item())

    def first_does(self, work: Callable[[], None]) -> None:
        """Rank 0 does `work` while the others wait. If it raises an error there, all processes raise it, so that none
        keeps waiting."""
        if self.world_size == 1:
            work()
            return
        if self.first:
            try:
                work()
            except BaseException as error:
                with contextlib.suppress(RuntimeError):  # the others are gone
                    self._from_first(_as_tensor(error))
                raise
        message = self._from_first(torch.empty(0, dtype=torch.uint8))
        if message.numel():
            raise _as_error(message)

    def _from_first(self, bytes_N: torch.Tensor) -> torch.Tensor:
        """The (N,) uint8 of rank 0, on every rank. Not a pickle: others may be on the network."""
        length = torch.tensor([bytes_N.numel()], device=self.device)
        torch.distributed.broadcast(length, src=0)
        if not self.first:
            bytes_N = torch.empty(int(length), dtype=torch.uint8)
        if length:
            bytes_N = bytes_N.to(self.device)
            torch.distributed.broadcast(bytes_N, src=0)
        return bytes_N.cpu()


def _as_tensor(error: BaseException) -> torch.Tensor:
    """(N,) uint8: the number of the error's kind, then its text in UTF-8."""
    kind = next((n for n, kind in enumerate(KINDS) if isinstance(error, kind)), KINDS.index(RunError))
    text = str(error) if isinstance(error, AlensError) else "process 0 has failed: its own lines say why"
    return torch.frombuffer(bytearray([kind, *text.encode(errors="replace")]), dtype=torch.uint8)


def _as_error(told_N: torch.Tensor) -> AlensError:
    kind, *text = bytes(told_N.tolist())
    return KINDS[kind](bytes(text).decode(errors="replace"))


def join(device: str, should_stop: ShouldStop = never) -> Processes:
    """Start or join the process group.

    Raises `RequestError` for a device or an environment that is wrong, `RunError` when other processes do not come,
    `StoppedError` when asked to stop while they are waited for.
    """
    launch = this_launch()
    where = _device(device, launch.local_rank)
    deepspeed = _deepspeed_on(where.type)
    if where.type == "cuda":
        os.environ["LOCAL_RANK"] = str(where.index)  # DeepSpeed takes the GPU of this number
        torch.cuda.set_device(where)
    backend = "nccl" if where.type == "cuda" else "gloo"
    begun = not torch.distributed.is_initialized()
    if begun:
        if launch.all_local:
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, LOOPBACK)
        store = meet(launch, should_stop)
        with lost_processes(launch.world_size):
            torch.distributed.init_process_group(
                backend,
                store=store,
                rank=launch.rank,
                world_size=launch.world_size,
                timeout=timedelta(seconds=COLLECTIVE_S),
                device_id=where if where.type == "cuda" and launch.world_size > 1 else None,
            )
    with printing_to_stderr():
        deepspeed.init_distributed(dist_backend=backend, verbose=False)  # takes the group that is there
    return Processes(rank=launch.rank, world_size=launch.world_size, device=where, begun=begun)


@contextlib.contextmanager
def leaving(processes: Processes) -> Iterator[None]:
    """Within the block the processes work together; at its end they leave their group, so that each may end, and this
    one may join another. Not after a failure: processes that were left would be waited for."""
    try:
        yield
    except StoppedError:
        _leave(processes)
        raise
    _leave(processes)


def _leave(processes: Processes) -> None:
    if processes.begun and torch.distributed.is_initialized():
        from deepspeed import comm

        comm.destroy_process_group()


def _deepspeed_on(kind: str) -> Any:
    """DeepSpeed, which moves what it trains to the kind of device that it chose when it was imported.

    Raises `RequestError` where that is another than `kind`.
    """
    os.environ["DS_ACCELERATOR"] = (
        kind  # what the environment had may be left over from a fit on another device
    )
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with printing_to_stderr():
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        if kind == "cpu":
            # DeepSpeed would compile a shared-memory op for a minute, and a killed build hangs every later start.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        chosen = get_accelerator().device_name()
    if chosen != kind:
        raise RequestError(
            f"DeepSpeed works on {chosen} in this process since it was imported, and this fit is on {kind}: fit in a new "
            f"process (in a notebook, restart the kernel), or set DS_ACCELERATOR={kind} before anything imports DeepSpeed"
        )
    return deepspeed


def alone(device: str) -> Processes:
    """This process by itself, without a group. Raises `RequestError` for a device that is not there."""
    return Processes(rank=0, world_size=1, device=_device(device, local_rank=0))


def printing_to_stderr() -> contextlib.AbstractContextManager[object]:
    """For calls of DeepSpeed: it prints which of its ops cannot be built, and standard output is for results."""
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def lost_processes(world_size: int) -> Iterator[None]:
    """When another process ends or is silent, the error of torch becomes one line."""
    try:
        yield
    except RuntimeError as error:
        if world_size == 1 or not _is_of_network(error):
            raise
        what = SOURCE.sub("", str(error).splitlines()[0]).split(". ")[0]
        raise RunError(
            f"another process of this fit has ended, or was not reached any more ({what}): its own lines say why; "
            "run again to go on from the last checkpoint"
        ) from error


def _is_of_network(error: RuntimeError) -> bool:
    """Whether this is an error of the network. gloo raises plain RuntimeErrors, with a line of its source."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if takes_cuda() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise RequestError(
            f"device {name!r} is unknown: take auto, cpu or cuda (each process takes the GPU of its LOCAL_RANK)"
        )
    # A launcher that binds a GPU to each process (srun --gpu-bind, --tres-per-task) shows it that one alone.
    index = 0 if torch.cuda.device_count() == 1 else local_rank
    if not (torch.cuda.is_available() and index < torch.cuda.device_count()):
        raise RequestError(f"there is no GPU for LOCAL_RANK {local_rank}: {cuda_devices()}")
    return torch.device("cuda", index)
