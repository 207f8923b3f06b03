"""The run of the first ten minutes on a GPU loses nothing that a stage has said, whatever becomes of the stage or the run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/first_gpu.py"

RUN = """
import sys
import first_gpu
from first_gpu import Stage

first_gpu.STAGES = {name: Stage(limit, module) for name, module, limit in TABLE}
first_gpu.SPARE_S = 1.0
sys.exit(first_gpu.main())
"""

STAGES = {
    "quick": 'print(".", end="", flush=True)\nsay("done", 1)\n',
    "fails": 'say("before", float("nan"))\nprint("on my way")\nraise SystemExit("it broke")\n',
    "hangs": 'child = subprocess.Popen(["sleep", "600"])\nsay("pids", [os.getpid(), child.pid])\ntime.sleep(600)\n',
    "parts": 'subprocess.Popen(["sleep", "600"])\nsay("done", 2)\n',
    "skips": 'skip("nothing to do")\n',
}
"""Parts leaves a process behind, which holds its output open."""

HEAD = "import os, subprocess, time\nfrom gpu_stages.say import end_with_run, say, skip\n\nend_with_run()\n"

Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """`begin(("hangs", 2), ...)` starts a run of these stages with these limits."""
    for name, body in STAGES.items():
        (tmp_path / f"{name}.py").write_text(HEAD + body)
    started = []

    def call(*stages: tuple[str, float]) -> "subprocess.Popen[str]":
        table = [("versions", "quick", 20), *((name, name, limit) for name, limit in stages)]
        path = os.pathsep.join([str(SCRIPT.parent), str(tmp_path)])
        process = subprocess.Popen(
            [sys.executable, "-c", RUN.replace("TABLE", repr(table)), "--out", str(tmp_path / "out.json")],
            env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def record(tmp_path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return body


def pids_of_hanging(tmp_path: Path) -> list[int]:
    """Waits until the stage has said them."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (tmp_path / "out.json").exists():
            pids: list[int] | None = record(tmp_path)["stages"]["hangs"].get("figures", {}).get("pids")
            if pids:
                return pids
        time.sleep(0.05)
    raise AssertionError("the stage did not begin")


def ended(pid: int) -> bool:
    """Whether a process ends within a minute; one that nobody waited for counts."""
    for _ in range(600):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_stage_that_fails_or_hangs_takes_nothing_from_the_others(begin: Begin, tmp_path: Path) -> None:
    run = begin(("fails", 30), ("hangs", 3), ("parts", 30), ("skips", 30))
    out, err = run.communicate(timeout=100)
    assert (run.returncode, err) == (1, "")
    body = record(tmp_path)
    assert {name: stage["state"] for name, stage in body["stages"].items()} == {
        "versions": "done", "fails": "failed", "hangs": "timed out", "parts": "done", "skips": "skipped",
    }  # fmt: skip
    assert body["end"] == "reached"
    fails = body["stages"]["fails"]
    assert fails["figures"] == {"before": "NaN"} and fails["code"] == 1
    assert fails["said"] == "on my way\nit broke\n"
    assert body["stages"]["parts"]["figures"] == {"done": 2} and body["stages"]["parts"]["seconds"] < 20
    assert body["stages"]["skips"]["why"] == "nothing to do"
    assert all(ended(pid) for pid in body["stages"]["hangs"]["figures"]["pids"])
    assert "fails: failed, " in out and "skips: skipped (nothing to do)" in out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_leaves_what_it_knew_and_no_process(
    begin: Begin, tmp_path: Path, number: signal.Signals
) -> None:
    run = begin(("hangs", 100), ("skips", 30))
    pids = pids_of_hanging(tmp_path)
    run.send_signal(number)
    run.communicate(timeout=60)
    body = record(tmp_path)
    assert body["stages"]["versions"]["figures"] == {"done": 1}
    assert body["stages"]["hangs"]["figures"] == {"pids": pids}
    assert body["stages"]["skips"]["state"] == "not begun"
    told = number == signal.SIGTERM
    assert body["stages"]["hangs"]["state"] == ("stopped" if told else "running")
    assert body["end"] == ("stopped by SIGTERM" if told else "not reached: killed, or still running")
    assert run.returncode == (1 if told else -9)
    assert all(ended(pid) for pid in pids)


def test_without_a_gpu_each_stage_says_why_it_was_skipped(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", out, "--stages", "kernels,rates"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    body = json.loads(out.read_text())
    assert body["stages"]["versions"]["state"] == "done"
    assert body["stages"]["versions"]["figures"]["packages"]["torch"] != "not installed"
    assert done.stdout.count("skipped (no GPU: torch sees 0 CUDA devices") == 2
    assert sum(stage.get("why") == "it was not asked for" for stage in body["stages"].values()) == 7
    assert {stage["state"] for name, stage in body["stages"].items() if name != "versions"} == {"skipped"}


def test_a_stage_that_is_not_there_is_refused() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--stages", "kernel"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no stage kernel: take some of versions," in done.stderr


def test_all_limits_together_are_below_ten_minutes() -> None:
    code = "from first_gpu import *; print(sum(stage.limit_s for stage in STAGES.values()) + SPARE_S)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 600
