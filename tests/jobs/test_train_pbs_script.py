"""`train_jobs/pbs.sh` without a PBS: stand-ins start it as PBS would, and take the place of qsub and pbsdsh.

PBS copies the script elsewhere, starts it in the home directory without arguments, and gives it the
variables that `qsub -v` names. pbsdsh runs a program with hardly any environment on the node of a line of
PBS_NODEFILE, prints the program's exit code when it is not 0, and ends with 0 itself.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import load_lenses

from .. import ports

LIMIT_S = 400
"""Only what hangs takes so long, on the busiest machine."""
TRAIN_JOBS = Path(__file__).parents[2] / "train_jobs"
ASKED = {"STORE": "my 'own' cache", "LENSES": "my lenses", "CONFIG": "my own.toml"}
FIT = ["fit", "my 'own' cache"]
OF_ALENS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

ALENS = """\
env -0 > "$0.env-${RANK:-alone}"
[ -z "${PUT:-}" ] || { mkdir -p "$3"; echo {} > "$3/stopped.json"; }
exit ${CODE:-0}"""
PBSDSH = """\
[ "$1 $3" = "-n --" ] || exit 1
cd /
code=0
env -i PBS_NODENUM="$2" PATH=/usr/bin:/bin "${@:4}" || code=$?
[ "$code" -eq 0 ] || echo "pbsdsh: task 0x00000000 exit status $code\""""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Where qsub ran, with a copy of the script, as the README says."""
    workdir = tmp_path / "it's a place"
    workdir.mkdir()
    shutil.copy(TRAIN_JOBS / "pbs.sh", workdir)
    return workdir


@pytest.fixture
def run(stand_ins: Any, tmp_path: Path, workdir: Path) -> Run:
    """Runs the script as a job over these nodes, a subjob with this index when there is one, with these variables.

    With PUT, alens leaves the marker of a fit that stopped on request.
    """
    stand_ins.add("alens", ALENS)
    stand_ins.add("pbsdsh", PBSDSH)
    stand_ins.add("qsub", "exit ${QSUB_CODE:-0}")
    spool = tmp_path / "108.server.SC"
    home = tmp_path / "home"
    home.mkdir()

    def run(
        index: int | None = None, nodes: str = "node07", **names: str
    ) -> "subprocess.CompletedProcess[str]":
        if not spool.exists():
            shutil.copy(workdir / "pbs.sh", spool)
        (tmp_path / "its nodes").write_text("".join(f"{node}\n" for node in nodes.split()))
        of_pbs = {"PBS_JOBID": "108.server", "PBS_O_WORKDIR": str(workdir), "NCPUS": "4", "HOME": str(home)}
        of_pbs["PBS_NODEFILE"] = str(tmp_path / "its nodes")
        subjob = {} if index is None else {"PBS_ARRAY_INDEX": str(index), "PBS_JOBID": f"108[{index}].server"}
        with (tmp_path / "the log").open("w+") as log:  # no pipe: a process may outlive the script
            done = subprocess.run(
                ["bash", str(spool)],
                cwd=home,
                env={**stand_ins.environment, **of_pbs, **subjob, **names},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                timeout=LIMIT_S,
            )
            log.seek(0)
            done.stderr = log.read()
        return done

    return run


def environment_of(stand_ins: Any, rank: int) -> dict[str, str]:
    entries = (stand_ins.folder / f"alens.env-{rank}").read_text().split("\0")[:-1]
    return dict(entry.split("=", 1) for entry in entries)


def test_a_job_is_one_fit(run: Run, stand_ins: Any, workdir: Path) -> None:
    done = run(**ASKED, HF_HUB_OFFLINE="0", MASTER_ADDR="elsewhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert stand_ins.calls("alens") == [[*FIT, "my lenses", "--config", "my own.toml"]]
    seen = stand_ins.environment_of("alens")
    assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"], seen["PWD"]) == ("4", "1", str(workdir))
    assert [name for name in OF_ALENS if name in seen] == []
    assert stand_ins.calls("qsub") == stand_ins.calls("pbsdsh") == []


def test_a_line_of_the_nodefile_is_a_process_that_knows_its_place(
    run: Run, stand_ins: Any, workdir: Path
) -> None:
    done = run(**ASKED, nodes="node07 node07 node08 node08", WANDB_MODE="off\nline, 'two'")
    assert (done.returncode, done.stderr) == (0, "")
    assert stand_ins.calls("alens") == [[*FIT, "my lenses", "--config", "my own.toml"]] * 4
    port = str(10000 + 108 * 131 % 20000)
    for rank in range(4):
        seen = environment_of(stand_ins, rank)
        assert [seen[name] for name in OF_ALENS] == [str(rank), "4", str(rank % 2), "node07", port]
        assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"], seen["PWD"]) == ("2", "1", str(workdir))
        assert (seen["WANDB_MODE"], seen["PBS_NODENUM"]) == ("off\nline, 'two'", str(rank))


def test_gpus_and_temporary_directories_of_the_first_node_stay_there(run: Run, stand_ins: Any) -> None:
    run(
        **ASKED,
        nodes="node07 node08",
        CUDA_VISIBLE_DEVICES="2,3",
        TMPDIR="/tmp/108.server",
        CUDA_CACHE_PATH="/here",
    )
    names = ("CUDA_VISIBLE_DEVICES", "TMPDIR", "CUDA_CACHE_PATH")
    seen = [[environment_of(stand_ins, rank).get(name) for name in names] for rank in range(2)]
    assert seen == [["2,3", "/tmp/108.server", "/here"], [None, None, "/here"]]


def test_processes_of_one_node_meet_where_no_other_reaches_them(run: Run, stand_ins: Any) -> None:
    run(**ASKED, nodes="node07 node07")
    assert [environment_of(stand_ins, rank)["MASTER_ADDR"] for rank in range(2)] == ["127.0.0.1"] * 2


def test_another_meeting_place_can_be_named(run: Run, stand_ins: Any) -> None:
    run(**ASKED, nodes="node07 node08", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    seen = environment_of(stand_ins, 1)
    assert [seen[name] for name in OF_ALENS] == ["1", "2", "0", "127.0.0.1", "29500"]


def test_a_subjob_fits_the_layer_of_its_index(run: Run, stand_ins: Any) -> None:
    run(7, **ASKED)
    run(10, **ASKED, LAYERS=" ".join(["0"] * 10 + ["4-7"]))
    run(TASK="8", **ASKED)
    assert [call[2:] for call in stand_ins.calls("alens")] == [
        [f"my lenses/{directory}", "--config", "my own.toml", "--layers", layers]
        for directory, layers in (("layer-07", "7"), ("layers-4-7", "4-7"), ("layer-08", "8"))
    ]


def test_more_options_are_split_as_a_shell_splits_them(run: Run, stand_ins: Any) -> None:
    other = stand_ins.add("an alens's copy")
    options = """--zero 1 --deepspeed 'a "new" file.json'"""
    run(STORE="cache", LENSES="lenses", OPTIONS=options, MAX_MINUTES="230", ALENS=str(other))
    (call,) = stand_ins.calls(other.name)
    assert call[3:] == ["--zero", "1", "--deepspeed", 'a "new" file.json', "--max-minutes", "230"]


@pytest.mark.parametrize(
    ("index", "names", "says"),
    [
        (None, {"LENSES": "lenses"}, "STORE is missing: name the cache with -v STORE=..."),
        (None, {"STORE": "cache"}, "LENSES is missing: name the directory to write with -v LENSES=..."),
        (None, {**ASKED, "TASK": "three"}, "TASK is 'three': it must be a whole number from 0 on"),
        (2, {**ASKED, "LAYERS": "0-3 4-7"}, "there is no task 2: LAYERS has 2 words, for tasks 0 to 1"),
        (1, {**ASKED, "LAYERS": "0-3 all"}, "LAYERS has the word 'all': write layers as 7 or 4-7 or 0,2"),
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


def test_a_fit_that_left_its_marker_is_submitted_again(run: Run, stand_ins: Any) -> None:
    done = run(**ASKED, CODE="75", PUT="1")
    assert (done.returncode, done.stderr) == (
        75,
        "pbs.sh: the fit of my lenses stopped: submitted again, 1 of 100\n",
    )
    assert stand_ins.submitted() == {**ASKED, "SCRIPT": "pbs.sh", "RESTARTS": "1", "MAX_RESTARTS": "100"}


def test_a_subjob_submits_itself_alone_and_does_the_same_work(run: Run, stand_ins: Any) -> None:
    """Commas, spaces and quotes arrive; the count goes on."""
    other = stand_ins.add("an alens, or a copy's copy", ALENS)
    asked = {
        **ASKED,
        "OPTIONS": '--heads 1,3 --deepspeed "it\'s new"',
        "LAYERS": "0-3 4-7",
        "MAX_MINUTES": "230",
        "MASTER_ADDR": "here",
        "MASTER_PORT": "29500",
        "ALENS": str(other),
    }
    stopped = {"CODE": "75", "PUT": "1"}
    run(1, **asked, **stopped)
    assert stand_ins.submitted() == {
        **asked,
        "TASK": "1",
        "SCRIPT": "pbs.sh",
        "RESTARTS": "1",
        "MAX_RESTARTS": "100",
    }
    run(**stand_ins.submitted(), **stopped)
    assert stand_ins.submitted()["RESTARTS"] == "2"
    first, second = stand_ins.calls(other.name)
    assert first == second and "it's new" in first and "my lenses/layers-4-7" in first


def test_of_several_processes_the_marker_counts(run: Run, stand_ins: Any) -> None:
    done = run(**ASKED, nodes="node07 node08", CODE="75", PUT="1")
    assert done.returncode == 75
    assert sorted(done.stderr.splitlines()) == [
        "pbs.sh: process 0: exit status 75",
        "pbs.sh: process 1: exit status 75",
        "pbs.sh: the fit of my lenses stopped: submitted again, 1 of 100",
    ]
    assert "RANK" not in stand_ins.submitted() and "MASTER_ADDR" not in stand_ins.submitted()


def test_when_one_process_fails_the_job_does_not_wait_for_the_others(
    run: Run, stand_ins: Any, workdir: Path
) -> None:
    """The minute is made short. PBS ends what outlives the script."""
    script = workdir / "pbs.sh"
    script.write_text(script.read_text().replace("SECONDS + 60", "SECONDS + 2"))
    waits = 'for _ in {1..3000}; do [ ! -e "$0.go" ] || break; sleep 0.1; done'
    stand_ins.add("alens", f'[ "$RANK" = 0 ] || exit 3; {waits}; exit 4')
    done = run(**ASKED, nodes="node07 node08")
    (stand_ins.folder / "alens.go").touch()
    assert (done.returncode, done.stderr) == (3, "pbs.sh: process 1: exit status 3\n")
    assert stand_ins.calls("qsub") == []


@pytest.mark.parametrize("nodes", ["node07", "node07 node08"])
@pytest.mark.parametrize("code", ["0", "1", "75", "143"])
def test_without_a_marker_codes_are_passed_on(run: Run, stand_ins: Any, nodes: str, code: str) -> None:
    assert run(**ASKED, nodes=nodes, CODE=code).returncode == int(code)
    assert stand_ins.calls("qsub") == []


def test_the_marker_of_an_earlier_run_says_nothing_of_this_one(
    run: Run, stand_ins: Any, workdir: Path
) -> None:
    (workdir / "my lenses").mkdir()
    (workdir / "my lenses" / "stopped.json").write_text("{}")
    assert run(**ASKED, CODE="1").returncode == 1
    assert stand_ins.calls("qsub") == []


def test_resubmissions_have_an_end(run: Run, stand_ins: Any) -> None:
    stopped = {**ASKED, "CODE": "75", "PUT": "1"}
    assert "submitted again, 3 of 3" in run(7, **stopped, MAX_RESTARTS="3", RESTARTS="2").stderr
    assert len(stand_ins.calls("qsub")) == 1
    done = run(TASK="7", **stopped, MAX_RESTARTS="3", RESTARTS="3")
    assert done.returncode == 75
    assert (
        "my lenses/layer-07 stopped and was submitted again 3 times, no more: submit it again" in done.stderr
    )
    assert len(stand_ins.calls("qsub")) == 1


def test_a_resubmission_that_is_refused_says_so(run: Run) -> None:
    done = run(7, **ASKED, CODE="75", PUT="1", QSUB_CODE="1")
    assert done.returncode == 75
    assert "the fit of my lenses/layer-07 cannot be submitted: submit it again" in done.stderr


def test_no_directive_makes_it_an_array() -> None:
    """A directive could not be taken back for one subjob alone. Jobs run anew when a node fails."""
    directives = re.findall(r"^#PBS (.*)$", (TRAIN_JOBS / "pbs.sh").read_text(), re.MULTILINE)
    assert "-r y" in directives and "-S /bin/bash" in directives
    assert not [line for line in directives if line.startswith("-J")]


@pytest.mark.slow
def test_two_processes_out_of_time_and_their_successors_fit_the_lenses(
    run: Run, stand_ins: Any, workdir: Path, demo_cache: Path
) -> None:
    """The real alens. Its time is over before the first step, and then it has all the time it needs."""
    alens = stand_ins.folder / "the alens"
    alens.write_text(f"""#!/bin/sh\nexec '{sys.executable}' -m alens "$@"\n""")
    alens.chmod(0o755)
    with ports.leased() as leased:
        fit_and_go_on(run, stand_ins, demo_cache, alens, leased[0])
    assert load_lenses(workdir / "lenses" / "layer-03").record.layers == (3,)


def fit_and_go_on(run: Run, stand_ins: Any, demo_cache: Path, alens: Path, port: int) -> None:
    asked = {
        "STORE": str(demo_cache),
        "LENSES": "lenses",
        "TASK": "3",
        "OPTIONS": "--steps 4 --batch-rows 256 --eval-rows 1024 --heads 1 --device cpu",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ALENS": str(alens),
    }
    done = run(**asked, nodes="node07 node08", MAX_MINUTES="0.0001")
    assert done.returncode == 75, done.stderr  # at the first step, or while one waited for the other
    assert "stopped after step 0 of 4" in done.stderr or "stopped while waiting for" in done.stderr
    done = run(**{**stand_ins.submitted(), "MAX_MINUTES": "99"}, nodes="node07 node08")
    assert done.returncode == 0, done.stderr
