"""`cache_jobs/slurm.sh` without a Slurm: stand-ins for srun, scontrol and alens record how they are called."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "cache_jobs" / "slurm.sh"
AN_ARRAY_TASK = {
    "SLURM_JOB_ID": "108",
    "SLURM_ARRAY_JOB_ID": "108",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "16",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "15",
    "SLURM_CPUS_PER_TASK": "4",
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(stand_ins: Any, tmp_path: Path) -> Run:
    """Runs the script as an array task with these arguments and, beside those of Slurm, these variables."""
    stand_ins.add("srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    stand_ins.add("scontrol", "exit ${SCONTROL_CODE:-0}")
    stand_ins.add("alens", "exit ${CODE:-0}")

    def run(*arguments: str, **names: str) -> "subprocess.CompletedProcess[str]":
        done: subprocess.CompletedProcess[str] = stand_ins.run(SCRIPT, arguments, {**AN_ARRAY_TASK, **names})
        return done

    return run


def test_a_task_becomes_a_worker_and_arguments_go_to_alens(run: Run, stand_ins: Any) -> None:
    done = run(
        "--config", "it's my.toml", "--layers", "1,3", "gpt2", "bookcorpus", 'a "new" store', WORKERS="64"
    )
    assert (done.returncode, done.stderr) == (0, "")
    given = ["--config", "it's my.toml", "--layers", "1,3", "gpt2", "bookcorpus", 'a "new" store']
    assert stand_ins.calls("alens") == [["cache", *given, "--worker", "7/64"]]
    (step,) = stand_ins.calls("srun")
    assert step[:3] == ["--ntasks=1", "--cpus-per-task=4", "alens"]
    assert stand_ins.calls("scontrol") == []


def test_the_step_is_offline_and_has_the_threads_that_were_asked_for(run: Run, stand_ins: Any) -> None:
    run(OMP_NUM_THREADS="99", HF_HUB_OFFLINE="0")
    seen = stand_ins.environment_of("alens")
    assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"]) == ("4", "1")
    run(SLURM_CPUS_PER_TASK="")
    assert stand_ins.environment_of("alens")["OMP_NUM_THREADS"] == "1"


def test_the_number_of_workers_is_the_size_of_the_array_unless_given(run: Run, stand_ins: Any) -> None:
    run()
    run(WORKERS="16", SLURM_ARRAY_TASK_COUNT="2", SLURM_ARRAY_TASK_MIN="7", SLURM_ARRAY_TASK_MAX="11")
    assert [call[-1] for call in stand_ins.calls("alens")] == ["7/16", "7/16"]


def test_minutes_and_another_alens(run: Run, stand_ins: Any) -> None:
    other = stand_ins.add("an alens's copy")
    assert run(MAX_MINUTES="230", ALENS=str(other)).returncode == 0
    assert stand_ins.calls(other.name) == [["cache", "--worker", "7/16", "--max-minutes", "230"]]
    assert stand_ins.calls("alens") == []


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"SLURM_ARRAY_TASK_ID": ""}, "this is not an array task: submit it with sbatch --array=0-15, say"),
        ({"WORKERS": "15"}, "the array goes up to 15, but the workers are 0 to 14"),
        (
            {"WORKERS": "8", "SLURM_ARRAY_TASK_ID": "1"},
            "give the number of all workers with --export=ALL,WORKERS=N",
        ),
        ({"SLURM_ARRAY_TASK_COUNT": "2"}, "the array goes up to 15, but the workers are 0 to 1"),
        ({"WORKERS": "0"}, "WORKERS is '0': it must be a whole number from 1 on"),
        ({"WORKERS": "016"}, "WORKERS is '016'"),
        ({"WORKERS": "many of them"}, "WORKERS is 'many of them'"),
    ],
)
def test_a_number_of_workers_that_does_not_fit_is_refused(
    run: Run, stand_ins: Any, names: dict[str, str], says: str
) -> None:
    done = run(**names)
    assert done.returncode == 2
    assert done.stderr.startswith("slurm.sh: ") and says in done.stderr and done.stderr.count("\n") == 1
    assert stand_ins.calls("srun") == stand_ins.calls("scontrol") == []


def test_a_worker_that_stopped_on_request_requeues_its_own_task(run: Run, stand_ins: Any) -> None:
    """It names the array and the index of the task: the last task's own number is that of the array."""
    done = run(CODE="75")
    assert stand_ins.calls("scontrol") == [["requeue", "108_7"]]
    assert (done.returncode, done.stderr) == (75, "slurm.sh: worker 7/16 stopped: requeue 1 of 100\n")


@pytest.mark.parametrize(("signal", "code"), [("USR1", 138), ("TERM", 143)])
def test_a_signal_that_comes_while_alens_is_starting_requeues_too(
    run: Run, stand_ins: Any, signal: str, code: int
) -> None:
    stand_ins.add("alens", f"kill -{signal} $$; sleep 9")
    assert run().returncode == code
    assert stand_ins.calls("scontrol") == [["requeue", "108_7"]]


@pytest.mark.parametrize("code", ["0", "1", "2", "130", "137"])
def test_other_exit_codes_are_passed_on(run: Run, stand_ins: Any, code: str) -> None:
    done = run(CODE=code)
    assert (done.returncode, done.stderr) == (int(code), "")
    assert stand_ins.calls("scontrol") == []


def test_requeues_have_an_end(run: Run, stand_ins: Any) -> None:
    assert "requeue 3 of 3" in run(CODE="75", MAX_RESTARTS="3", SLURM_RESTART_COUNT="2").stderr
    assert len(stand_ins.calls("scontrol")) == 1
    done = run(CODE="75", MAX_RESTARTS="3", SLURM_RESTART_COUNT="3")
    assert done.returncode == 75
    assert "worker 7/16 stopped and was requeued 3 times, no more: submit it again" in done.stderr
    assert "100 times" in run(CODE="75", SLURM_RESTART_COUNT="100").stderr
    assert len(stand_ins.calls("scontrol")) == 1


def test_a_requeue_that_is_refused_says_so(run: Run) -> None:
    done = run(CODE="75", SCONTROL_CODE="1")
    assert done.returncode == 75
    assert "worker 7/16 cannot be requeued: submit it again" in done.stderr
