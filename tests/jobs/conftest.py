"""What the tests of job scripts share: stand-ins for schedulers, an `alens` that waits, and a real Slurm."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .. import ports

ROOT = Path(__file__).parents[2]
LIMIT_S = 400
"""Only what hangs takes so long, on the busiest machine."""

SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
SCHEDULER_NAMES = (
    "SLURM",
    "SBATCH",
    "SRUN",
    "PBS",
    "FLUX",
    "WORKER",
    "MAX_",
    "OPTIONS",
    "CONFIG",
    "ALENS",
    "RESTARTS",
    "LAYERS",
    "LENSES",
    "STORE",
    "TASK",
    "MASTER_",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
)

STAND_IN = """\
#!/usr/bin/env bash
# Whole or not at all, for calls at the same time: mv puts the environment, cat appends the arguments in one write.
env -0 > '{record}.'$$
mv '{record}.'$$ '{record}.env'
{{ printf '%s\\0' "$@"; printf '\\n'; }} > '{record}.'$$
cat '{record}.'$$ >> '{record}.calls'
rm '{record}.'$$
{then}
"""

SLURM_CONF = """\
ClusterName=alens
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[98]}
# Two Slurms on one machine, for two processes of tests, number their jobs apart: a fit's port follows from the number.
FirstJobId={first_job}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential is void: 5 s is the least, 120 s the default. A node that is so busy
# that it reads a credential later refuses the job.
AuthInfo=socket={folder}/munge.socket,cred_expire=20
# Slurm takes what is slow for lost, after 10 s, and forgets a job 300 s after its end: a busy machine may need longer.
MessageTimeout=100
BatchStartTimeout=300
MinJobAge=36000
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
JobRequeue=0
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[97]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[96]} CPUs=4
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=600 MaxTime=INFINITE
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


def wait_until(true: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.1)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    """Polls until something is true, and fails with what was waited for."""
    return wait_until


def plain_environment() -> dict[str, str]:
    """This process's environment without what a scheduler, or the user of a job script, would set."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SCHEDULER_NAMES)}


class StandIns:
    """Programs that record how they were called, in a folder that is first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**plain_environment(), "PATH": f"{folder}:{os.environ['PATH']}"}
        folder.mkdir()

    def add(self, name: str, then: str = "exit 0") -> Path:
        """A program that goes on with `then`, in bash, once it has recorded its call."""
        program = self.folder / name
        record = str(program).replace("'", "'\\''")
        program.write_text(STAND_IN.format(record=record, then=then))
        program.chmod(0o755)
        return program

    def run(
        self, script: Path, arguments: tuple[str, ...], names: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """A job script beside the folder of stand-ins, with these variables; one that is empty is not set."""
        environment = {**self.environment, **names}
        return subprocess.run(
            ["bash", str(script), *arguments],
            cwd=self.folder.parent,
            env={name: value for name, value in environment.items() if value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    def calls(self, name: str) -> list[list[str]]:
        """Arguments of each call, in order."""
        record = self.folder / f"{name}.calls"
        calls = record.read_text().split("\0\n")[:-1] if record.exists() else []
        return [arguments.split("\0") for arguments in calls]

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of the latest call."""
        entries = (self.folder / f"{name}.env").read_text().split("\0")[:-1]
        return dict(entry.split("=", 1) for entry in entries)

    def submitted(self) -> dict[str, str]:
        """The variables that the job of the latest qsub gets, from its environment."""
        option, names, script = self.calls("qsub")[-1]
        assert (option, script) == ("-v", "pbs.sh")
        seen = self.environment_of("qsub")
        return {name: seen[name] for name in names.split(",")}


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    """In a folder whose name holds a space and a quote, as the home of someone may."""
    return StandIns(tmp_path / "it's bin")


@pytest.fixture
def waiting_alens(tmp_path: Path) -> Path:
    """The real `alens`, but it waits after its second batch or step until there is a file `go` where it runs."""
    folder = tmp_path / "an alens that waits"
    folder.mkdir()
    program = folder / "alens"
    shutil.copy(Path(__file__).with_name("waiting.py"), folder)
    program.write_text(f"""#!/bin/sh\nexec '{sys.executable}' "$(dirname "$0")/waiting.py" "$@"\n""")
    program.chmod(0o755)
    return program


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A running Slurm: nodes n1 and n2 of four CPUs each, and the partition `high`, which preempts `low`."""

    environment: dict[str, str]

    def run(
        self,
        *command: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> str:
        """The standard output of a Slurm command."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """The job's number."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd, env=env)

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job or an array task."""
        text = self.run("scontrol", "--oneliner", "show", "job", job)
        return dict(part.split("=", 1) for part in text.split() if "=" in part)

    def queue(self) -> str:
        return self.run("squeue", "--noheader")

    def tasks(self, job: str) -> set[int]:
        """Which tasks of an array are waiting, running or ending."""
        text = self.run("squeue", "--noheader", "--array", f"--job={job}", "--format=%K", check=False)
        return {int(task) for task in text.split()}

    def wait_until_idle(self) -> None:
        wait_until(lambda: not self.queue(), "an empty queue")

    def processes(self) -> dict[int, str]:
        """Process ids and command lines of everything that belongs to this Slurm, jobs included."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        collected = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    collected[int(folder.name)] = (
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    )
            except OSError:
                continue  # it has ended
        return {pid: command for pid, command in collected.items() if command}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A real Slurm on this machine, for this process's tests; skipped where it cannot run."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
    missing = [name for name in needed if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        pytest.skip(f"no Slurm: {', '.join(missing)} not found (Debian: slurmctld slurmd slurm-client munge)")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root")

    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    conf = folder / "slurm.conf"

    slurm = Slurm(environment={**plain_environment(), "PATH": SYSTEM_PATH, "SLURM_CONF": str(conf)})
    files = (f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log"))
    # --force: pytest's folders are closed to other users, and munged wants to serve them.
    munged = ["munged", "--force", "--foreground", *files, f"--socket={folder}/munge.socket"]
    commands = (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"])
    daemons: list[subprocess.Popen[bytes]] = []
    with ports.leased() as leased:
        # So that the ports of the jobs' fits are leased as well: train_jobs/slurm.sh takes 10000 + number.
        first_job = leased[0] - 10_000 + 1
        conf.write_text(
            SLURM_CONF.format(host=socket.gethostname(), folder=folder, ports=leased, first_job=first_job)
        )
        try:
            for command in commands:
                with (folder / f"daemon-{len(daemons)}.out").open("wb") as log:
                    daemon = subprocess.Popen(
                        command, env=slurm.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                daemons.append(daemon)
                if command is munged:
                    wait_until((folder / "munge.socket").exists, f"munged's socket, see {folder}")
            idle = ("sinfo", "--noheader", "--partition=low", "--format=%D %T")
            wait_until(lambda: slurm.run(*idle, check=False) == "2 idle", f"two idle nodes, see {folder}")
            yield slurm
        finally:
            stop(slurm, daemons)


def stop(slurm: Slurm, daemons: list["subprocess.Popen[bytes]"]) -> None:
    """Cancel what runs, end the daemons, and kill what is left: nothing outlives the tests."""
    end = time.monotonic() + LIMIT_S
    with contextlib.suppress(subprocess.TimeoutExpired):
        while time.monotonic() < end and slurm.run("squeue", "--noheader", check=False):
            slurm.run("scancel", "--user=root", check=False)
            time.sleep(0.5)
    for daemon in reversed(daemons):
        daemon.terminate()
    for daemon in daemons:
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    end = time.monotonic() + LIMIT_S
    while left := slurm.processes():
        assert time.monotonic() < end, left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
