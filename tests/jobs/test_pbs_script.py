"""`cache_jobs/pbs.sh` without a PBS: a stand-in starts it as PBS would, another one takes the place of qsub.

PBS copies the script elsewhere, starts it in the home directory without arguments, and gives it the
variables that `qsub -v` names.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store.cache_reader import open_cache

CACHE_JOBS = Path(__file__).parents[2] / "cache_jobs"
ASKED = {"WORKERS": "16", "CONFIG": "my own.toml"}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Where qsub ran, with a copy of the script, as the README says."""
    workdir = tmp_path / "it's a place"
    workdir.mkdir()
    shutil.copy(CACHE_JOBS / "pbs.sh", workdir)
    return workdir


@pytest.fixture
def run(stand_ins: Any, tmp_path: Path, workdir: Path) -> Run:
    """Runs the script as a job, a subjob with this index when there is one, with these variables."""
    stand_ins.add("alens", "exit ${CODE:-0}")
    stand_ins.add("qsub", "exit ${QSUB_CODE:-0}")
    spool = shutil.copy(CACHE_JOBS / "pbs.sh", tmp_path / "108.server.SC")
    home = tmp_path / "home"
    home.mkdir()

    def run(index: int | None = None, **names: str) -> "subprocess.CompletedProcess[str]":
        of_pbs = {"PBS_JOBID": "108.server", "PBS_O_WORKDIR": str(workdir), "NCPUS": "4", "HOME": str(home)}
        subjob = {} if index is None else {"PBS_ARRAY_INDEX": str(index), "PBS_JOBID": f"108[{index}].server"}
        return subprocess.run(
            ["bash", str(spool)],
            cwd=home,
            env={**stand_ins.environment, **of_pbs, **subjob, **names},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )

    return run


def test_a_subjob_becomes_a_worker(run: Run, stand_ins: Any, workdir: Path) -> None:
    done = run(7, **ASKED, HF_HUB_OFFLINE="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert stand_ins.calls("alens") == [["cache", "--config", "my own.toml", "--worker", "7/16"]]
    seen = stand_ins.environment_of("alens")
    assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"], seen["PWD"]) == ("4", "1", str(workdir))
    assert stand_ins.calls("qsub") == []


def test_a_single_worker_needs_no_array(run: Run, stand_ins: Any) -> None:
    assert run(WORKER="3", **ASKED).returncode == 0
    assert stand_ins.calls("alens") == [["cache", "--config", "my own.toml", "--worker", "3/16"]]


def test_more_options_are_split_as_a_shell_splits_them(run: Run, stand_ins: Any) -> None:
    options = """--layers 1,3 demo demo 'a "new" store' --device cpu"""
    other = stand_ins.add("an alens's copy")
    run(7, **ASKED, OPTIONS=options, MAX_MINUTES="230", ALENS=str(other))
    (call,) = stand_ins.calls(other.name)
    assert call[3:9] == ["--layers", "1,3", "demo", "demo", 'a "new" store', "--device"]
    assert call[10:] == ["--worker", "7/16", "--max-minutes", "230"]


@pytest.mark.parametrize(
    ("index", "names", "says"),
    [
        (None, ASKED, "no worker is named: submit with qsub -J 0-15, or with -v WORKER=0, say"),
        (None, {**ASKED, "WORKER": "three"}, "no worker is named"),
        (16, ASKED, "there is no worker 16: the workers are 0 to 15"),
        (None, {**ASKED, "WORKER": "16"}, "there is no worker 16"),
        (7, {"CONFIG": "x.toml"}, "WORKERS is '': give the number of all workers with -v WORKERS=16, say"),
        (0, {"CONFIG": "x.toml", "WORKERS": "0"}, "WORKERS is '0'"),
        (7, {"WORKERS": "16"}, "CONFIG is missing: name a TOML file with -v CONFIG=..."),
        (7, {**ASKED, "SCRIPT": "mine.sh"}, "say where it is with -v SCRIPT=..."),
    ],
)
def test_what_does_not_fit_is_refused(
    run: Run, stand_ins: Any, index: int | None, names: dict[str, str], says: str
) -> None:
    done = run(index, **names)
    assert done.returncode == 2
    assert done.stderr.startswith("pbs.sh: ") and says in done.stderr and done.stderr.count("\n") == 1
    assert stand_ins.calls("alens") == stand_ins.calls("qsub") == []


def test_a_subjob_that_stopped_on_request_submits_its_worker_alone(run: Run, stand_ins: Any) -> None:
    done = run(7, **ASKED, CODE="75")
    assert (done.returncode, done.stderr) == (75, "pbs.sh: worker 7/16 stopped: submitted again, 1 of 100\n")
    assert stand_ins.submitted() == {
        **ASKED,
        "WORKER": "7",
        "SCRIPT": "pbs.sh",
        "RESTARTS": "1",
        "MAX_RESTARTS": "100",
    }


def test_a_worker_that_was_submitted_again_does_the_same_work(run: Run, stand_ins: Any) -> None:
    """Commas, spaces and quotes arrive; the count goes on."""
    other = stand_ins.add("an alens, or a copy's copy", "exit 75")
    asked = {
        **ASKED,
        "OPTIONS": '--layers 1,3 demo demo "it\'s new"',
        "MAX_MINUTES": "230",
        "ALENS": str(other),
    }
    run(7, **asked)
    assert stand_ins.submitted()["RESTARTS"] == "1"
    run(**stand_ins.submitted())
    assert stand_ins.submitted()["RESTARTS"] == "2"
    first, second = stand_ins.calls(other.name)
    assert first == second and "it's new" in first


@pytest.mark.parametrize("code", ["0", "1", "2", "130", "137", "143"])
def test_other_exit_codes_are_passed_on(run: Run, stand_ins: Any, code: str) -> None:
    done = run(7, **ASKED, CODE=code)
    assert (done.returncode, done.stderr) == (int(code), "")
    assert stand_ins.calls("qsub") == []


def test_resubmissions_have_an_end(run: Run, stand_ins: Any) -> None:
    assert "submitted again, 3 of 3" in run(7, **ASKED, CODE="75", MAX_RESTARTS="3", RESTARTS="2").stderr
    assert len(stand_ins.calls("qsub")) == 1
    done = run(WORKER="7", **ASKED, CODE="75", MAX_RESTARTS="3", RESTARTS="3")
    assert done.returncode == 75
    assert "worker 7/16 stopped and was submitted again 3 times, no more: submit it again" in done.stderr
    assert len(stand_ins.calls("qsub")) == 1


def test_a_resubmission_that_is_refused_says_so(run: Run) -> None:
    done = run(7, **ASKED, CODE="75", QSUB_CODE="1")
    assert done.returncode == 75
    assert "worker 7/16 cannot be submitted: submit it again" in done.stderr


def test_no_directive_makes_it_an_array() -> None:
    """A directive could not be taken back for one worker alone. Single workers run anew when a node fails."""
    directives = re.findall(r"^#PBS (.*)$", (CACHE_JOBS / "pbs.sh").read_text(), re.MULTILINE)
    assert "-r y" in directives and "-S /bin/bash" in directives
    assert not [line for line in directives if line.startswith("-J")]


@pytest.mark.slow
def test_a_worker_out_of_time_and_its_successor_write_the_cache(
    run: Run, stand_ins: Any, workdir: Path, waiting_alens: Path
) -> None:
    """The real alens. Its time is over before the first batch, and then it has all the time it needs."""
    shutil.copy(CACHE_JOBS / "demo.toml", workdir / "demo jobs.toml")
    asked = {
        "WORKERS": "2",
        "CONFIG": "demo jobs.toml",
        "OPTIONS": "--max-rows 1024",
        "ALENS": str(waiting_alens),
    }
    (workdir / "go").touch()
    assert run(0, **asked, MAX_MINUTES="0.0001").returncode == 75
    assert run(**{**stand_ins.submitted(), "MAX_MINUTES": "99"}).returncode == 0
    assert not open_cache(workdir / "demo-cache").sealed
    assert run(1, **asked).returncode == 0
    assert open_cache(workdir / "demo-cache").sealed
