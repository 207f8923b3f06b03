"""One process or many: joins the process group that torchrun, deepspeed or srun describe, or runs alone.

In: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT from the environment, all or none. Out: a
`Processes` with the few collective operations a fit needs. DeepSpeed starts the group (nccl on CUDA, gloo
on the CPU).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from alens.errors import AlensError, DamageError, RequestError, RunError, StoppedError

log = logging.getLogger("alens")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ALONE = dict(zip(VARIABLES, ("0", "1", "0", "127.0.0.1", "0"), strict=True))
"""Of one process. Port 0: the system gives a free one as it is bound, so that nobody can take it before."""

KINDS: tuple[type[AlensError], ...] = (RequestError, DamageError, RunError, StoppedError)
"""Of errors, as rank 0 tells them to the others: by number."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes of a fit, seen from one of them."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that writes."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """In place, over all processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any process: so that all stop at the same step."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def first_does(self, work: Callable[[], None]) -> None:
        """Rank 0 does `work` while the others wait. What it raises there is raised by all, so that none waits on."""
        if self.world_size == 1:
            work()
            return
        error: BaseException | None = None
        if self.first:
            try:
                work()
            except BaseException as raised:
                error = raised
        told = self._from_first(_as_tensor(error))
        if error is not None:
            raise error
        if told.numel():
            raise _as_error(told)

    def _from_first(self, bytes_N: torch.Tensor) -> torch.Tensor:
        """The (N,) uint8 of rank 0, on every rank. No pickle: the network may not be ours alone."""
        length = torch.tensor([bytes_N.numel()], device=self.device)
        torch.distributed.broadcast(length, src=0)
        if not self.first:
            bytes_N = torch.empty(int(length), dtype=torch.uint8)
        if length:
            bytes_N = bytes_N.to(self.device)
            torch.distributed.broadcast(bytes_N, src=0)
        return bytes_N.cpu()


def _as_tensor(error: BaseException | None) -> torch.Tensor:
    """(N,) uint8: the number of its kind, then its text in UTF-8; empty where there is none."""
    if error is None:
        return torch.empty(0, dtype=torch.uint8)
    kind = next((n for n, kind in enumerate(KINDS) if isinstance(error, kind)), KINDS.index(RunError))
    text = str(error) if isinstance(error, AlensError) else "process 0 has failed: its own lines say why"
    return torch.frombuffer(bytearray([kind, *text.encode(errors="replace")]), dtype=torch.uint8)


def _as_error(told_N: torch.Tensor) -> AlensError:
    kind, *text = bytes(told_N.tolist())
    return KINDS[kind](bytes(text).decode(errors="replace"))


def join(device: str) -> Processes:
    """Start or join the process group. Raises `RequestError` for a device or an environment that is wrong."""
    given = [name for name in VARIABLES if name in os.environ]
    if not given:
        os.environ.update(ALONE)
    elif missing := [name for name in VARIABLES if name not in os.environ]:
        raise RequestError(
            f"the environment has {given[0]} but not {', '.join(missing)}: start with torchrun, deepspeed or srun, or with none of them set"
        )
    rank, world_size, local = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    where = _device(device, local)
    if where.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    if where.type == "cpu":
        # DeepSpeed would compile a shared-memory op for a minute, and a killed build hangs every later start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    else:
        torch.cuda.set_device(where)
    deepspeed.init_distributed(dist_backend="nccl" if where.type == "cuda" else "gloo", verbose=False)
    return Processes(rank=rank, world_size=world_size, device=where)


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise RequestError(
            f"{name} is {os.environ[name]!r} in the environment: it must be a number"
        ) from None


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise RequestError(
            f"device {name!r} is unknown: take auto, cpu or cuda (each process takes the GPU of its LOCAL_RANK)"
        )
    if local_rank >= torch.cuda.device_count():
        raise RequestError(
            f"there is no GPU for LOCAL_RANK {local_rank}: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device("cuda", local_rank)
