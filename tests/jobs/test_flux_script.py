"""`cache_jobs/flux.sh` without a Flux: stand-ins for flux and alens record how they are called."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store.cache_reader import open_cache

SCRIPT = Path(__file__).parents[2] / "cache_jobs" / "flux.sh"
ONE_OF_A_SET = {"FLUX_JOB_ID": "f23", "FLUX_JOB_SIZE": "1", "FLUX_TASK_RANK": "0", "FLUX_JOB_CC": "7"}
"""What Flux sets for the job of index 7 of `flux submit --cc=0-15`."""
JOBSPEC = {"attributes": {"system": {"duration": 60, "environment": {"FLUX_JOB_CC": "7", "NAME": "it's"}}}}
FLUX = """\
case "$1 $2" in
    "job info") cat '{jobspec}' ;;
    "python -c") shift; exec python3 "$@" ;;
    "job submit") cat > '{submitted}'; exit ${{SUBMIT_CODE:-0}} ;;
esac
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """Where the job stands that was submitted again."""
    return tmp_path / "submitted.json"


@pytest.fixture
def run(stand_ins: Any, tmp_path: Path, submitted: Path) -> Run:
    """Runs the script as a task of a job with these arguments and, beside those of Flux, these variables."""
    jobspec = tmp_path / "jobspec.json"
    jobspec.write_text(json.dumps(JOBSPEC))
    stand_ins.add("flux", FLUX.format(jobspec=jobspec, submitted=submitted))
    stand_ins.add("alens", "exit ${CODE:-0}")

    def run(*arguments: str, **names: str) -> "subprocess.CompletedProcess[str]":
        done: subprocess.CompletedProcess[str] = stand_ins.run(SCRIPT, arguments, {**ONE_OF_A_SET, **names})
        return done

    return run


def test_a_job_of_a_set_becomes_a_worker(run: Run, stand_ins: Any) -> None:
    done = run("--config", "it's my.toml", "--layers", "1,3", WORKERS="16", MAX_MINUTES="230")
    assert (done.returncode, done.stderr) == (0, "")
    asked = ["cache", "--config", "it's my.toml", "--layers", "1,3", "--worker", "7/16"]
    assert stand_ins.calls("alens") == [[*asked, "--max-minutes", "230"]]
    assert stand_ins.calls("flux") == []


def test_a_task_of_one_job_becomes_a_worker(run: Run, stand_ins: Any) -> None:
    """Its own rank and size count, not the index that the job has as a whole."""
    run(FLUX_JOB_SIZE="4", FLUX_TASK_RANK="2", WORKERS="16")
    assert stand_ins.calls("alens") == [["cache", "--worker", "2/4"]]


def test_a_worker_is_offline_and_has_the_threads_of_its_cores(run: Run, stand_ins: Any) -> None:
    run(WORKERS="16", OMP_NUM_THREADS="99", HF_HUB_OFFLINE="0")
    seen = stand_ins.environment_of("alens")
    cores = len(os.sched_getaffinity(0))
    assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"]) == (str(cores), "1")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"FLUX_JOB_CC": "", "WORKERS": "16"}, "this is one job alone: submit a set with flux submit --cc"),
        ({}, "WORKERS is '': give the number of all workers with --env=WORKERS=16, say"),
        ({"WORKERS": "016"}, "WORKERS is '016'"),
        ({"WORKERS": "7"}, "there is no worker 7: the workers are 0 to 6"),
    ],
)
def test_what_does_not_fit_is_refused(run: Run, stand_ins: Any, names: dict[str, str], says: str) -> None:
    done = run(**names)
    assert done.returncode == 2
    assert done.stderr.startswith("flux.sh: ") and says in done.stderr and done.stderr.count("\n") == 1
    assert stand_ins.calls("alens") == stand_ins.calls("flux") == []


def test_a_worker_that_stopped_submits_its_job_again_with_a_count(run: Run, submitted: Path) -> None:
    done = run(WORKERS="16", CODE="75", RESTARTS="4")
    assert (done.returncode, done.stderr) == (75, "flux.sh: worker 7/16 stopped: submitted again, 5 of 100\n")
    job = json.loads(submitted.read_text())
    environment = job["attributes"]["system"].pop("environment")
    assert environment == {**JOBSPEC["attributes"]["system"]["environment"], "RESTARTS": "5"}
    assert job["attributes"]["system"] == {"duration": 60}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"RESTARTS": "3", "MAX_RESTARTS": "3"}, "was submitted again 3 times, no more: submit it again"),
        ({"FLUX_JOB_SIZE": "16"}, "worker 0/16 stopped: submit again what is missing"),
    ],
)
def test_a_worker_that_is_not_submitted_again_says_so(
    run: Run, submitted: Path, names: dict[str, str], says: str
) -> None:
    done = run(**{"WORKERS": "16", "CODE": "75", **names})
    assert done.returncode == 75 and says in done.stderr and not submitted.exists()


def test_a_submission_that_is_refused_says_so(run: Run) -> None:
    done = run(WORKERS="16", CODE="75", SUBMIT_CODE="1")
    assert done.returncode == 75 and "worker 7/16 cannot be submitted: submit it again" in done.stderr


@pytest.mark.parametrize("code", ["0", "1", "2", "137"])
def test_other_exit_codes_are_passed_on(run: Run, stand_ins: Any, code: str) -> None:
    done = run(WORKERS="16", CODE=code)
    assert (done.returncode, done.stderr, stand_ins.calls("flux")) == (int(code), "", [])


@pytest.mark.parametrize(("number", "again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_before_its_time_limit_a_worker_is_submitted_again_and_a_cancelled_one_is_not(
    run: Run,
    stand_ins: Any,
    tmp_path: Path,
    submitted: Path,
    wait_until: Callable[..., None],
    number: int,
    again: bool,
) -> None:
    """Flux signals the script and alens. Either way the script waits for alens, which saves what it has."""
    stand_ins.add(
        "alens", "trap 'sleep 0.3; touch saved; exit 75' USR1 TERM; touch up; while true; do sleep 0.1; done"
    )
    job = subprocess.Popen(
        ["bash", str(SCRIPT)],
        cwd=tmp_path,
        env={**stand_ins.environment, **ONE_OF_A_SET, "WORKERS": "16"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until((tmp_path / "up").exists, "alens")
    os.killpg(job.pid, number)
    assert job.wait(400) == 75
    assert job.stderr is not None
    job.stderr.close()
    assert (tmp_path / "saved").exists() and submitted.exists() == again


@pytest.mark.slow
def test_a_worker_before_its_time_limit_and_its_successor_write_the_cache(
    run: Run,
    stand_ins: Any,
    tmp_path: Path,
    submitted: Path,
    waiting_alens: Path,
    wait_until: Callable[..., None],
) -> None:
    """The real alens on the demo. The successor gets the variables of the job that was submitted again."""
    asked = ("--config", str(SCRIPT.with_name("demo.toml")), "--max-rows", "3072")
    names = {"WORKERS": "2", "FLUX_JOB_CC": "1"}
    first = subprocess.Popen(
        ["bash", str(SCRIPT), *asked],
        cwd=tmp_path,
        env={**stand_ins.environment, **ONE_OF_A_SET, **names, "ALENS": str(waiting_alens)},
        start_new_session=True,
    )
    wait_until(lambda: list(tmp_path.glob("waiting-*")), "a worker in the middle of its work")
    os.killpg(first.pid, signal.SIGUSR1)
    wait_until(lambda: list(tmp_path.glob("told-to-stop-*")), "a worker that heard of it")
    (tmp_path / "go").touch()
    assert first.wait(400) == 75
    count = json.loads(submitted.read_text())["attributes"]["system"]["environment"]["RESTARTS"]
    real = {"ALENS": str(Path(sys.executable).with_name("alens")), "WORKERS": "2"}
    assert run(*asked, **real, FLUX_JOB_CC="0").returncode == 0
    assert not open_cache(tmp_path / "demo-cache").sealed
    assert run(*asked, **real, FLUX_JOB_CC="1", RESTARTS=count).returncode == 0
    assert open_cache(tmp_path / "demo-cache").sealed
