"""`cache_jobs/slurm.sh` under a real Slurm: workers are killed and preempted, and the cache is the same."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store.cache_reader import open_cache

from ..folders import array_hashes

CACHE_JOBS = Path(__file__).parents[2] / "cache_jobs"
SCRIPT = CACHE_JOBS / "slurm.sh"
WORKERS = 4
pytestmark = pytest.mark.slow

Wait = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the jobs are submitted: a path with a space and a quote, holding `demo jobs.toml`."""
    folder = tmp_path / "it's a place"
    folder.mkdir()
    shutil.copy(CACHE_JOBS / "demo.toml", folder / "demo jobs.toml")
    return folder


def submit(slurm: Any, folder: Path, alens: Path, array: str, *options: str, **names: object) -> str:
    """An array of workers, one thread each, on the partition that is preempted."""
    environment = {"ALENS": str(alens), **{name: str(value) for name, value in names.items()}}
    given = ("--partition=low", "--cpus-per-task=1", f"--array={array}")
    return str(
        slurm.submit(*given, SCRIPT, "--config", "demo jobs.toml", *options, cwd=folder, env=environment)
    )


def committed(folder: Path, worker: int) -> int:
    """How many shards of a worker have their commit record."""
    records = (folder / "demo-cache" / "commits").glob("[0-9]*.json")
    return sum(int(record.stem) % WORKERS == worker for record in records)


def log(folder: Path, job: str, worker: int) -> str:
    file = folder / f"slurm-{job}_{worker}.out"
    return file.read_text() if file.exists() else ""


def told(folder: Path) -> int:
    """How many processes know that they are to stop, and wait."""
    return len(list(folder.glob("told-to-stop-*")))


def kill_alens(slurm: Any, worker: int) -> None:
    """SIGKILL to the process that computes, as the kernel does when memory is short."""
    option = f"--worker {worker}/{WORKERS} "
    (pid,) = [pid for pid, line in slurm.processes().items() if "waiting.py" in line and option in line]
    os.kill(pid, signal.SIGKILL)


def test_an_array_that_is_killed_and_preempted_writes_the_undisturbed_cache(
    slurm: Any, folder: Path, waiting_alens: Path, wait_until: Wait, run_alens_process: Any
) -> None:
    job = submit(slurm, folder, waiting_alens, f"0-{WORKERS - 1}", WORKERS=WORKERS)
    for worker in range(WORKERS):
        wait_until(
            lambda worker=worker: committed(folder, worker) == 1,
            f"a shard of worker {worker}, see {folder}",
        )

    slurm.run("scancel", "--signal=KILL", f"{job}_1")
    kill_alens(slurm, 2)
    wait_until(lambda: slurm.tasks(job) == {0, 3}, "the end of workers 1 and 2")
    before = told(folder)  # worker 1, if it came to put its file before it was killed
    slurm.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=folder)
    wait_until(lambda: told(folder) == before + 2, "a preemption of workers 0 and 3")
    (folder / "go").touch()
    slurm.wait_until_idle()

    for worker in (0, 3):  # 3 is the last of the array: its job has the array's own number
        assert log(folder, job, worker).count(f"worker {worker}/{WORKERS} stopped: requeue 1 of 100\n") == 1
    assert [committed(folder, worker) for worker in range(WORKERS)] == [6, 1, 1, 6]
    assert slurm.job(f"{job}_1")["JobState"] == "CANCELLED"
    assert (slurm.job(f"{job}_2")["JobState"], slurm.job(f"{job}_2")["ExitCode"]) == ("FAILED", "137:0")
    missing = run_alens_process("info", folder / "demo-cache", "--array", WORKERS).stdout.strip()
    assert missing == "1-2"

    submit(slurm, folder, waiting_alens, missing, WORKERS=WORKERS)
    slurm.wait_until_idle()
    assert open_cache(folder / "demo-cache").sealed
    nothing = run_alens_process("info", folder / "demo-cache", "--array", WORKERS)
    assert (nothing.code, nothing.stdout.strip()) == (0, "")

    undisturbed = folder.parent / "undisturbed"
    alone = run_alens_process("cache", "--config", folder / "demo jobs.toml", "demo", "demo", undisturbed)
    assert alone.code == 0, alone.stderr
    assert array_hashes(folder / "demo-cache") == array_hashes(undisturbed)


def test_a_worker_whose_minutes_are_over_is_requeued_and_goes_on(
    slurm: Any, folder: Path, waiting_alens: Path, wait_until: Wait
) -> None:
    """The clock of the first run goes ahead while it is held; that of the second has gone ahead before it starts."""
    options = ("--max-rows", "2048")
    job = submit(slurm, folder, waiting_alens, "0", *options, MAX_MINUTES=30, MAX_RESTARTS=9)
    wait_until(lambda: list(folder.glob("waiting-*")), f"a second batch, see {folder}")
    (folder / "late").touch()
    wait_until(lambda: told(folder) == 1, f"the end of its minutes, see {folder}")
    (folder / "go").touch()
    slurm.wait_until_idle()
    assert "slurm.sh: worker 0/1 stopped: requeue 1 of 9\n" in log(folder, job, 0)
    assert "rows are committed" in log(folder, job, 0)
    assert open_cache(folder / "demo-cache").sealed
    assert (slurm.job(f"{job}_0")["JobState"], slurm.job(f"{job}_0")["ExitCode"]) == ("COMPLETED", "0:0")


def test_a_worker_that_its_user_cancels_is_not_requeued(
    slurm: Any, folder: Path, waiting_alens: Path, wait_until: Wait
) -> None:
    job = submit(slurm, folder, waiting_alens, "0")
    wait_until(lambda: committed(folder, 0) == 1, f"a shard, see {folder}")
    slurm.run("scancel", job)
    (folder / "go").touch()
    slurm.wait_until_idle()
    assert slurm.job(f"{job}_0")["JobState"] == "CANCELLED"
    assert "requeue" not in log(folder, job, 0)


@pytest.mark.parametrize("signal", ["TERM", "USR1"])
def test_a_worker_that_is_signalled_while_it_starts_is_requeued(
    slurm: Any, folder: Path, stand_ins: Any, wait_until: Wait, signal: str
) -> None:
    starting = stand_ins.add("alens", '[ -n "${SLURM_RESTART_COUNT:-}" ] || exec sleep 999')
    job = submit(slurm, folder, starting, "0")
    wait_until(lambda: stand_ins.calls("alens"), "the start")
    slurm.run("scancel", f"--signal={signal}", f"{job}_0")
    slurm.wait_until_idle()
    assert "requeue 1 of 100" in log(folder, job, 0)
    assert (slurm.job(f"{job}_0")["JobState"], slurm.job(f"{job}_0")["Restarts"]) == ("COMPLETED", "1")


def test_slurm_understands_the_directives(slurm: Any, folder: Path) -> None:
    job = slurm.submit("--hold", "--ignore-pbs", SCRIPT, cwd=folder)
    details = slurm.job(job)
    slurm.run("scancel", job)
    assert (details["JobName"], details["CPUs/Task"], details["Requeue"]) == ("alens-cache", "4", "1")


def test_the_directives_for_pbs_are_understood(slurm: Any, folder: Path) -> None:
    """sbatch reads some `#PBS` lines, and only these are checked."""
    job = slurm.submit("--hold", CACHE_JOBS / "pbs.sh", cwd=folder)
    details = slurm.job(job)
    slurm.run("scancel", job)
    assert (details["JobName"], details["MinCPUsNode"], details["TimeLimit"]) == (
        "alens-cache",
        "4",
        "04:00:00",
    )
