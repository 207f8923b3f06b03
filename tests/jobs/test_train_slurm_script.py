"""`train_jobs/slurm.sh` without a Slurm: stand-ins for srun, scontrol and alens record how they are called."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "train_jobs" / "slurm.sh"
A_JOB = {"SLURM_JOB_ID": "108", "SLURM_JOB_NODELIST": "node[07-08]", "SLURM_CPUS_PER_TASK": "4"}
AN_ARRAY_TASK = {
    "SLURM_JOB_ID": "115",
    "SLURM_ARRAY_JOB_ID": "108",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_MAX": "11",
}
A_TASK_OF_A_STEP = {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
OF_ALENS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

SRUN = 'while [[ $1 == --* ]]; do shift; done; export SLURM_NTASKS=${SLURM_NTASKS:-1}; exec "$@"'
SCONTROL = r'[ "$1" = requeue ] || printf "node07\nnode08\n"; exit ${SCONTROL_CODE:-0}'
ALENS = '[ -z "${PUT:-}" ] || { mkdir -p "$3"; echo {} > "$3/stopped.json"; }; exit ${CODE:-0}'

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(stand_ins: Any, tmp_path: Path) -> Run:
    """Runs the script as a job with these arguments and, beside those of Slurm, these variables.

    With PUT, alens leaves the marker of a fit that stopped on request.
    """
    for name, then in (("srun", SRUN), ("scontrol", SCONTROL), ("alens", ALENS)):
        stand_ins.add(name, then)

    def run(*arguments: str, **names: str) -> "subprocess.CompletedProcess[str]":
        done: subprocess.CompletedProcess[str] = stand_ins.run(SCRIPT, arguments, {**A_JOB, **names})
        return done

    return run


def requeued(stand_ins: Any) -> list[str]:
    return [call[1] for call in stand_ins.calls("scontrol") if call[0] == "requeue"]


def test_arguments_go_to_alens(run: Run, stand_ins: Any) -> None:
    given = ("my 'own' cache", 'a "new" place', "--config", "it's my.toml", "--layers", "1,3")
    done = run(*given)
    assert (done.returncode, done.stderr) == (0, "")
    assert stand_ins.calls("alens") == [["fit", *given]]
    (step,) = stand_ins.calls("srun")
    assert step[:4] == ["--kill-on-bad-exit=0", "--wait=60", "--cpus-per-task=4", "bash"]
    assert requeued(stand_ins) == []


def test_one_process_runs_alone(run: Run, stand_ins: Any) -> None:
    run("cache", "lenses", MASTER_ADDR="elsewhere", MASTER_PORT="1")
    seen = stand_ins.environment_of("alens")
    assert [name for name in OF_ALENS if name in seen] == []


def test_several_processes_get_what_alens_reads(run: Run, stand_ins: Any) -> None:
    run("cache", "lenses", **A_TASK_OF_A_STEP)
    seen = stand_ins.environment_of("alens")
    assert [seen[name] for name in OF_ALENS] == ["5", "8", "1", "node07", "10108"]
    run("cache", "lenses", **A_TASK_OF_A_STEP, SLURM_JOB_NUM_NODES="2")
    assert stand_ins.environment_of("alens")["MASTER_ADDR"] == "node07"
    run("cache", "lenses", **A_TASK_OF_A_STEP, SLURM_JOB_NUM_NODES="1")
    assert stand_ins.environment_of("alens")["MASTER_ADDR"] == "127.0.0.1"  # which no other node reaches
    run("cache", "lenses", **A_TASK_OF_A_STEP, SLURM_GPUS_PER_TASK="1", CUDA_VISIBLE_DEVICES="1")
    assert stand_ins.environment_of("alens")["LOCAL_RANK"] == "0"  # the only GPU that it sees
    run("cache", "lenses", **A_TASK_OF_A_STEP, CUDA_VISIBLE_DEVICES="3")  # --gpu-bind, --tres-per-task
    assert stand_ins.environment_of("alens")["LOCAL_RANK"] == "0"
    run("cache", "lenses", **A_TASK_OF_A_STEP, SLURM_GPUS_PER_TASK="1", CUDA_VISIBLE_DEVICES="0,1")
    assert stand_ins.environment_of("alens")["LOCAL_RANK"] == "1"


def test_another_meeting_place_can_be_named(run: Run, stand_ins: Any) -> None:
    run("cache", "lenses", **A_TASK_OF_A_STEP, MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    seen = stand_ins.environment_of("alens")
    assert [seen[name] for name in OF_ALENS[3:]] == ["127.0.0.1", "29500"]
    assert stand_ins.calls("scontrol") == []


def test_the_step_is_offline_and_has_the_threads_that_were_asked_for(run: Run, stand_ins: Any) -> None:
    run("cache", "lenses", OMP_NUM_THREADS="99", HF_HUB_OFFLINE="0")
    seen = stand_ins.environment_of("alens")
    assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"]) == ("4", "1")
    run("cache", "lenses", SLURM_CPUS_PER_TASK="")
    assert stand_ins.environment_of("alens")["OMP_NUM_THREADS"] == "1"


def test_a_task_of_an_array_fits_the_layer_of_its_index(run: Run, stand_ins: Any) -> None:
    assert run("cache", "my lenses", "--layers", "11", **AN_ARRAY_TASK).returncode == 0
    run("cache", "my lenses", **{**AN_ARRAY_TASK, "SLURM_ARRAY_TASK_ID": "10"})
    assert stand_ins.calls("alens") == [
        ["fit", "cache", "my lenses/layer-07", "--layers", "11", "--layers", "7"],  # the last one counts
        ["fit", "cache", "my lenses/layer-10", "--layers", "10"],
    ]


@pytest.mark.parametrize(
    ("task", "directory", "layers"),
    [
        ("0", "layers-0-3", "0-3"),
        ("1", "layer-04", "4"),
        ("2", "layers-5,8-11", "5,8-11"),
        ("3", "layer-09", "09"),
    ],
)
def test_a_task_of_an_array_fits_a_group_of_layers(
    run: Run, stand_ins: Any, task: str, directory: str, layers: str
) -> None:
    names = {**AN_ARRAY_TASK, "SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_MAX": "3"}
    assert run("cache", "lenses", **names, LAYERS="0-3 4  5,8-11 09").returncode == 0
    assert stand_ins.calls("alens") == [["fit", "cache", f"lenses/{directory}", "--layers", layers]]


def test_minutes_and_another_alens(run: Run, stand_ins: Any) -> None:
    other = stand_ins.add("an alens's copy")
    assert run("cache", "lenses", MAX_MINUTES="230", ALENS=str(other)).returncode == 0
    assert stand_ins.calls(other.name) == [["fit", "cache", "lenses", "--max-minutes", "230"]]
    assert stand_ins.calls("alens") == []


@pytest.mark.parametrize(
    ("arguments", "names", "says"),
    [
        ((), {}, "give CACHE and LENSES first, then options: sbatch slurm.sh CACHE LENSES --config FILE.toml"),
        (("cache",), {}, "give CACHE and LENSES first"),
        (("--config", "my.toml"), {}, "give CACHE and LENSES first"),
        (("cache", "--config", "my.toml"), {}, "give CACHE and LENSES first"),
        (("cache", "lenses"), {**AN_ARRAY_TASK, "LAYERS": "0-3 4-7"}, "up to 11, but LAYERS has 2 words, for tasks 0 to 1"),
        (
            ("cache", "lenses"),
            {**AN_ARRAY_TASK, "SLURM_ARRAY_TASK_ID": "0", "LAYERS": "0-3 4-7"},
            "the array goes up to 11, but LAYERS has 2 words",
        ),
        (
            ("cache", "lenses"),
            {**AN_ARRAY_TASK, "SLURM_ARRAY_TASK_MAX": "7", "LAYERS": "0 1 2 3 4 5 6 ../7"},
            "LAYERS has the word '../7': write layers as 7 or 4-7 or 0,2",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    run: Run, stand_ins: Any, arguments: tuple[str, ...], names: dict[str, str], says: str
) -> None:
    done = run(*arguments, **names)
    assert done.returncode == 2
    assert done.stderr.startswith("slurm.sh: ") and says in done.stderr and done.stderr.count("\n") == 1
    assert stand_ins.calls("srun") == stand_ins.calls("scontrol") == []


@pytest.mark.parametrize("code", ["75", "143", "137", "1"])
def test_a_fit_that_left_its_marker_is_requeued_whatever_the_code(
    run: Run, stand_ins: Any, code: str
) -> None:
    done = run("cache", "my lenses", CODE=code, PUT="1")
    assert requeued(stand_ins) == ["108"]
    assert (done.returncode, done.stderr) == (
        int(code),
        "slurm.sh: the fit of my lenses stopped: requeue 1 of 100\n",
    )


def test_a_task_of_an_array_requeues_itself_alone(run: Run, stand_ins: Any) -> None:
    """It names the array and the index of the task: the last task's own number is that of the array."""
    done = run("cache", "it's lenses", **AN_ARRAY_TASK, CODE="75", PUT="1")
    assert requeued(stand_ins) == ["108_7"]
    assert "the fit of it's lenses/layer-07 stopped: requeue 1 of 100" in done.stderr


@pytest.mark.parametrize(("signal", "code"), [("USR1", 138), ("TERM", 143)])
def test_a_signal_that_comes_while_alens_is_starting_requeues_too(
    run: Run, stand_ins: Any, signal: str, code: int
) -> None:
    stand_ins.add("alens", f"kill -{signal} $$; sleep 9")
    assert run("cache", "lenses").returncode == code
    assert requeued(stand_ins) == ["108"]


@pytest.mark.parametrize("code", ["0", "1", "2", "75", "130", "137", "139"])
def test_without_a_marker_other_codes_are_passed_on(run: Run, stand_ins: Any, code: str) -> None:
    done = run("cache", "lenses", CODE=code)
    assert (done.returncode, done.stderr) == (int(code), "")
    assert requeued(stand_ins) == []


def test_the_marker_of_an_earlier_run_says_nothing_of_this_one(
    run: Run, stand_ins: Any, tmp_path: Path
) -> None:
    """alens takes it away too, but a node on which alens cannot start would be tried a hundred times."""
    lenses = tmp_path / "it's lenses"
    lenses.mkdir()
    (lenses / "stopped.json").write_text("{}")
    assert run("cache", str(lenses), CODE="1").returncode == 1
    assert requeued(stand_ins) == []


def test_requeues_have_an_end(run: Run, stand_ins: Any) -> None:
    stopped = {"CODE": "75", "PUT": "1"}
    done = run("cache", "lenses", **stopped, MAX_RESTARTS="3", SLURM_RESTART_COUNT="2")
    assert "requeue 3 of 3" in done.stderr
    assert len(requeued(stand_ins)) == 1
    done = run("cache", "lenses", **stopped, MAX_RESTARTS="3", SLURM_RESTART_COUNT="3")
    assert done.returncode == 75
    assert "the fit of lenses stopped and was requeued 3 times, no more: submit it again" in done.stderr
    assert "100 times" in run("cache", "lenses", **stopped, SLURM_RESTART_COUNT="100").stderr
    assert len(requeued(stand_ins)) == 1


def test_a_requeue_that_is_refused_says_so(run: Run) -> None:
    done = run("cache", "lenses", CODE="75", PUT="1", MASTER_ADDR="here", SCONTROL_CODE="1")
    assert done.returncode == 75
    assert "the fit of lenses cannot be requeued: submit it again" in done.stderr
