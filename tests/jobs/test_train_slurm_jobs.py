"""`train_jobs/slurm.sh` under a real Slurm: fits are preempted, signalled and crashed, and the lenses are the same."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import load_lenses

from ..lens_files import tensors

SCRIPT = Path(__file__).parents[2] / "train_jobs" / "slurm.sh"
SIZES = ("--steps", 8, "--batch-rows", 256, "--eval-rows", 1024, "--heads", "1,4", "--device", "cpu")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
pytestmark = pytest.mark.slow

Wait = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the jobs are submitted: a path with a space and a quote."""
    folder = tmp_path / "it's a place"
    folder.mkdir()
    return folder


@pytest.fixture
def alens(stand_ins: Any) -> Path:
    """The command itself, from this checkout."""
    program: Path = stand_ins.folder / "the alens"
    program.write_text(f"""#!/bin/sh\nexec '{sys.executable}' -m alens "$@"\n""")
    program.chmod(0o755)
    return program


def submit(slurm: Any, folder: Path, alens: Path, *arguments: object, options: tuple[str, ...] = ()) -> str:
    """A job with one thread a process, on the partition that is preempted unless `options` name another.

    Names of the test's nodes do not resolve: its processes meet on this machine.
    """
    given = ("--partition=low", "--cpus-per-task=1", *options)
    environment = {"ALENS": str(alens), "MASTER_ADDR": "127.0.0.1"}
    return str(slurm.submit(*given, SCRIPT, *arguments, cwd=folder, env=environment))


def log(folder: Path, job: str) -> str:
    file = folder / f"slurm-{job}.out"
    return file.read_text() if file.exists() else ""


def waiting(folder: Path) -> int:
    """How many processes wait after their second step."""
    return len(list(folder.glob("waiting-*")))


def told(folder: Path) -> int:
    """How many of these processes know that they are to stop."""
    return len(list(folder.glob("told-to-stop-*")))


def marker(lenses: Path) -> dict[str, int] | None:
    file = lenses / "stopped.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_a_fit_over_two_nodes_that_is_preempted_ends_with_the_undisturbed_lenses(
    slurm: Any, folder: Path, demo_cache: Path, waiting_alens: Path, alens: Path, wait_until: Wait
) -> None:
    """The job that preempts it is the undisturbed fit."""
    fit = ("--layers", 3, *SIZES)
    job = submit(slurm, folder, waiting_alens, demo_cache, "my lenses", *fit, options=TWO_NODES)
    wait_until(lambda: waiting(folder) == 2, f"two processes at step 2, see {folder}")
    high = (*TWO_NODES, "--partition=high", "--exclusive")
    other = submit(slurm, folder, alens, demo_cache, "other", *fit, options=high)
    wait_until(lambda: told(folder) == 2, f"a preemption that both nodes know of, see {folder}")
    (folder / "go").touch()
    wait_until(lambda: marker(folder / "my lenses"), f"a stop, see {folder}")
    assert marker(folder / "my lenses") == {"step": 2, "steps": 8}
    slurm.wait_until_idle()

    text = log(folder, job)
    assert text.count("slurm.sh: the fit of my lenses stopped: requeue 1 of 100\n") == 1
    assert text.count("alens: stopped after step 2 of 8") == 2  # both processes, together
    details = slurm.job(job)
    assert (details["JobState"], details["Restarts"], details["ExitCode"]) == ("COMPLETED", "1", "0:0"), text
    assert slurm.job(other)["JobState"] == "COMPLETED", log(folder, other)

    assert marker(folder / "my lenses") is None
    assert not (folder / "my lenses" / "checkpoints").exists()
    ours, undisturbed = tensors(folder / "my lenses"), tensors(folder / "other")
    assert ours.keys() == undisturbed.keys()
    assert [name for name in ours if not torch.equal(ours[name], undisturbed[name])] == []


def test_an_array_fits_a_layer_a_task_and_requeues_the_task_that_was_stopped(
    slurm: Any, folder: Path, demo_cache: Path, waiting_alens: Path, wait_until: Wait
) -> None:
    """The last task has the number of the array: requeued by it, both would start again."""
    job = submit(slurm, folder, waiting_alens, demo_cache, "lenses", *SIZES, options=("--array=0,3",))
    wait_until(lambda: waiting(folder) == 2, f"both tasks at step 2, see {folder}")
    slurm.run("scancel", "--signal=USR1", f"{job}_3")
    wait_until(lambda: told(folder) == 1, f"the signal, see {folder}")
    (folder / "go").touch()
    slurm.wait_until_idle()
    for task, restarts in ((0, "0"), (3, "1")):
        details, text = slurm.job(f"{job}_{task}"), log(folder, f"{job}_{task}")
        assert (details["JobState"], details["Restarts"]) == ("COMPLETED", restarts), text
        lenses = folder / "lenses" / f"layer-0{task}"
        assert load_lenses(lenses).record.layers == (task,)
        assert marker(lenses) is None
    assert "the fit of lenses/layer-03 stopped: requeue 1 of 100" in log(folder, f"{job}_3")


def test_a_fit_that_is_signalled_while_it_starts_is_requeued(
    slurm: Any, folder: Path, stand_ins: Any, wait_until: Wait
) -> None:
    starting = stand_ins.add("alens", '[ -n "${SLURM_RESTART_COUNT:-}" ] || exec sleep 999')
    jobs = {
        signal: submit(slurm, folder, starting, "cache", signal, options=TWO_NODES)
        for signal in ("TERM", "USR1")
    }
    wait_until(lambda: len(stand_ins.calls("alens")) == 4, "the start of two processes each")
    for signal, job in jobs.items():
        slurm.run("scancel", f"--signal={signal}", job)
    slurm.wait_until_idle()
    for job in jobs.values():
        assert "requeue 1 of 100" in log(folder, job)
        assert (slurm.job(job)["JobState"], slurm.job(job)["Restarts"]) == ("COMPLETED", "1")


def test_a_fit_of_which_one_process_fails_is_not_requeued(slurm: Any, folder: Path, stand_ins: Any) -> None:
    """The other waits for it, as a collective operation does, and is killed; the minute is made short.

    Ended by SIGTERM, as srun's --kill-on-bad-exit does, it would look as if it had been told to stop.
    """
    script = folder / "script.sh"
    script.write_text(SCRIPT.read_text().replace("--wait=60", "--wait=2"))
    failing = stand_ins.add("alens", '[ "$RANK" = 0 ] || exit 1; exec sleep 999')
    environment = {"ALENS": str(failing), "MASTER_ADDR": "127.0.0.1", "MAX_RESTARTS": "1"}
    job = slurm.submit(
        *TWO_NODES, "--cpus-per-task=1", script, "cache", "lenses", cwd=folder, env=environment
    )
    slurm.wait_until_idle()
    assert "requeue" not in log(folder, job)
    assert (slurm.job(job)["JobState"], slurm.job(job)["Restarts"]) == ("FAILED", "0"), log(folder, job)


def test_each_process_knows_its_place(slurm: Any, folder: Path, stand_ins: Any) -> None:
    names = "$RANK $WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $OMP_NUM_THREADS"
    telling = stand_ins.add("alens", f'echo "place: {names} $SLURMD_NODENAME"')
    job = submit(slurm, folder, telling, "cache", "lenses", options=("--nodes=2", "--ntasks-per-node=2"))
    slurm.wait_until_idle()
    places = [line.split()[1:] for line in log(folder, job).splitlines() if line.startswith("place: ")]
    assert sorted(places) == [
        [str(rank), "4", str(rank % 2), "127.0.0.1", "1", f"n{rank // 2 + 1}"] for rank in range(4)
    ]


def test_slurm_understands_the_directives(slurm: Any, folder: Path) -> None:
    job = slurm.submit("--hold", "--ignore-pbs", SCRIPT, cwd=folder)
    details = slurm.job(job)
    slurm.run("scancel", job)
    assert (details["JobName"], details["CPUs/Task"], details["Requeue"]) == ("alens-fit", "4", "1")
    assert (details["NumNodes"], details["NtasksPerN:B:S:C"]) == ("1-1", "1:0:*:*")


def test_the_directives_for_pbs_are_understood(slurm: Any, folder: Path) -> None:
    """sbatch reads some `#PBS` lines, and only these are checked."""
    job = slurm.submit("--hold", SCRIPT.with_name("pbs.sh"), cwd=folder)
    details = slurm.job(job)
    slurm.run("scancel", job)
    assert (details["JobName"], details["TimeLimit"]) == ("alens-fit", "04:00:00")
