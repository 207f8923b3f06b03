"""How this process of a fit was launched: which of the processes it is, and where they meet.

In: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, all or none of them; and the variables by which MPI and Slurm
number the processes that they start together. Out: a `Launch`, or a `RequestError` that says what to set.
"""

import os
import socket
from dataclasses import dataclass

from alens.errors import RequestError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ALONE = dict(zip(VARIABLES, ("0", "1", "0", "127.0.0.1", "0"), strict=True))
"""The values for a single process. DeepSpeed asks for all five; nothing listens at this address."""

LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "mpiexec", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_SIZE", "mpiexec", "PMI_RANK", "MPI_LOCALRANKID"),
    ("SLURM_STEP_NUM_TASKS", "srun", "SLURM_PROCID", "SLURM_LOCALID"),
)
"""The variable with the number of processes, what started them, and the variables with this one's rank and local rank.
SLURM_NTASKS does not belong here: a batch script has it too."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Which of the processes of a fit this is, and where they meet."""

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int

    @property
    def all_local(self) -> bool:
        """Whether all processes run on this host, as far as the environment tells."""
        one_host = os.environ.get("LOCAL_WORLD_SIZE") == str(self.world_size)
        return self.world_size == 1 or one_host or is_loopback(self.address)


def is_loopback(address: str) -> bool:
    """Whether an address can be seen to be one of this host alone; for the name of a host that cannot be seen."""
    return address in ("localhost", "::1") or address.startswith("127.")


def this_launch() -> Launch:
    """How this process was launched. Raises `RequestError` for an environment that is half set, or makes no sense."""
    given = [name for name in VARIABLES if name in os.environ]
    if not given:
        os.environ.update(ALONE)
    elif missing := [name for name in VARIABLES if name not in os.environ]:
        raise RequestError(
            f"the environment has {given[0]} but not {', '.join(missing)}: start with torchrun, deepspeed or srun, or with none of them set"
        )
    numbers = {name: _number(name) for name in VARIABLES if name != "MASTER_ADDR"}
    launch = Launch(
        rank=numbers["RANK"],
        world_size=numbers["WORLD_SIZE"],
        local_rank=numbers["LOCAL_RANK"],
        address=os.environ["MASTER_ADDR"],
        port=numbers["MASTER_PORT"],
    )
    if not 0 <= launch.rank < launch.world_size:
        raise RequestError(
            f"RANK is {launch.rank} and WORLD_SIZE {launch.world_size} in the environment: ranks go from 0 to WORLD_SIZE - 1"
        )
    if launch.world_size > 1 and not 0 < launch.port < 2**16:
        raise RequestError(f"MASTER_PORT is {launch.port} in the environment: a port is from 1 to 65535")
    return launch


def check_alone(work: str, instead: str | None = None) -> None:
    """Raises `RequestError` where several processes were started together and none knows its RANK.

    Each would do all of `work`. `instead` is the advice in the message, for work that processes cannot share.
    """
    if any(name in os.environ for name in VARIABLES):
        return
    for size, launcher, rank, local_rank in LAUNCHERS:
        count = os.environ.get(size, "")
        if count.isdigit() and int(count) > 1:
            mend = instead or (
                f"let each run bash -c 'RANK=${rank} WORLD_SIZE=${size} LOCAL_RANK=${local_rank} "
                f"MASTER_ADDR={socket.gethostname()} MASTER_PORT=29500 exec alens {work} ...', with the host of process 0"
            )
            raise RequestError(
                f"{launcher} started {count} processes ({size}), and each would do the whole {work}: {mend}; "
                f"or unset {size}, for a {work} of its own in each"
            )


def _number(name: str) -> int:
    value = os.environ[name]
    if not (value.isascii() and value.isdigit()):
        raise RequestError(f"{name} is {value!r} in the environment: it must be a number")
    return int(value)
