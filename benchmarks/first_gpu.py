"""The first ten minutes on a GPU: what to know about it, in stages, written down as it becomes known.

Each stage is a process of its own with a time limit. What it says is in the JSON file at once: a stage that fails or
hangs, or a run that is killed, takes nothing from what was said before. The whole ends within --minutes. Where there is
no GPU, each stage says in one line why it was skipped, and the exit code is 0. It is 1 where a stage failed.
`--device cpu` rehearses: it runs on the CPU what can run there, with small sizes and Triton's interpreter.

    make bench-gpu
    python benchmarks/first_gpu.py [--out first-gpu.json] [--model DIR] [--stages trial,kernels]
"""

import argparse
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARK = "figure "
"""A line of a stage that begins with it goes on with a JSON object of figures."""
SAID = 3000
"""Characters of what else a stage printed that are kept."""
SPARE_S = 8.0
"""Seconds at the end of the run for what ends processes and writes files."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A process that says figures."""

    limit_s: float
    module: str
    """What `python -m` runs."""
    arguments: tuple[str, ...] = ()


KERNELS, COMMANDS, DEVICES = (f"tests/gpu/test_{name}.py" for name in ("kernels", "every_command", "devices"))
STAGES = {
    "versions": Stage(40, "gpu_stages.versions"),
    "trial": Stage(40, "gpu_stages.trial"),
    "kernels": Stage(75, "gpu_stages.tests", (KERNELS,)),
    "rates": Stage(70, "gpu_stages.rates"),
    "steps": Stage(45, "gpu_stages.steps"),
    "tests": Stage(100, "gpu_stages.tests", ("tests/gpu", *(f"--ignore={path}" for path in (KERNELS, COMMANDS, DEVICES)))),
    "devices": Stage(60, "gpu_stages.tests", (DEVICES,)),
    "stage-one": Stage(60, "gpu_stages.stage_one"),
    "commands": Stage(70, "gpu_stages.tests", (COMMANDS,)),
    "sanitizer": Stage(30, "gpu_stages.sanitizer"),
}  # fmt: skip
"""In order of worth; the limits together are less than ten minutes."""


class Stopped(BaseException):
    """The run was asked to end."""


class Record:
    """What is known, and the file that holds it."""

    def __init__(self, path: Path, **about: Any) -> None:
        self.path = path
        self.body: dict[str, Any] = {**about, "stages": {name: {"state": "not begun"} for name in STAGES}}
        self.write()

    def stage(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.body["stages"][name]
        return entry

    def write(self) -> None:
        """The file is the one before or the one after, never a part."""
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w") as file:
            json.dump(self.body, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


def run_stage(name: str, record: Record, command: list[str], env: dict[str, str], limit_s: float) -> None:
    """Run a stage to its end or its limit; its figures are written as they are said."""
    entry, since = record.stage(name), time.monotonic()
    entry.update(state="running", figures={}, limit_s=round(limit_s, 1))
    record.write()
    said = ""
    with started(command, env) as process:
        ended = False
        for line in lines(process, since + limit_s):
            if line is None:
                ended = True
            elif line.startswith(MARK):
                entry["figures"].update(json.loads(line.removeprefix(MARK), parse_constant=str))
                entry["seconds"] = round(time.monotonic() - since, 1)
                record.write()
            elif line.strip():
                said = (said + line)[-SAID:]
        code = process.wait(SPARE_S) if ended else None
    skipped = entry["figures"].pop("skipped", None)
    state = "timed out" if code is None else "failed" if code else "skipped" if skipped else "done"
    entry.update(state=state, seconds=round(time.monotonic() - since, 1))
    entry.update({"why": skipped} if skipped else {})
    entry.update({"code": code, "said": said} if state in ("failed", "timed out") else {})
    record.write()


@contextlib.contextmanager
def started(command: list[str], env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own, all of which is ended at the end of the block."""
    process = subprocess.Popen(
        command,
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: the stage then ends too
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def lines(process: "subprocess.Popen[bytes]", until: float) -> Iterator[str | None]:
    """Whole lines as they come, and None at the end of the process; simply ends at the time `until`."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(min(left, 0.5)):
                if process.poll() is not None:  # a process that it left behind may hold its output open
                    yield None
                    return
                continue
            if not (piece := os.read(process.stdout.fileno(), 1 << 16)):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
                    yield None
                return
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") + "\n" for line in whole)


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("first-gpu.json"), help="the JSON file to write")
    parser.add_argument("--model", help="also time stage one on this model, a directory or an id of the hub")
    parser.add_argument("--corpus", help="its text  [the bundled one]", default="demo")
    parser.add_argument("--stages", help="only these, separated by commas", default=",".join(STAGES))
    parser.add_argument("--minutes", type=float, default=10.0, help="the whole ends within so many")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal")
    asked = parser.parse_args()
    if unknown := set(asked.stages.split(",")) - STAGES.keys():
        parser.error(f"there is no stage {', '.join(sorted(unknown))}: take some of {','.join(STAGES)}")
    return asked


def environment(asked: argparse.Namespace, work: Path) -> dict[str, str]:
    """That of every stage: what Triton builds goes into an empty folder, so that first builds are seen."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "TRITON_CACHE_DIR": str(work / "triton"),
        "ALENS_TEST_DEVICE": asked.device,
        **({"ALENS_TEST_GPU": "1"} if asked.device == "cuda" else {"TRITON_INTERPRET": "1"}),
    }


def no_gpu(record: Record, asked: argparse.Namespace) -> str | None:
    """Why the other stages cannot run, or None. Where the versions could not be had, they are tried."""
    figures = record.stage("versions").get("figures", {})
    reason: str | None = figures.get("no_gpu") if asked.device == "cuda" else None
    return reason


def run(
    asked: argparse.Namespace, record: Record, work: Path, until: float, say: Callable[[str], None]
) -> bool:
    """All stages that were asked for; whether none failed."""
    chosen = ["versions", *(name for name in asked.stages.split(",") if name != "versions")]
    for name in STAGES:
        entry = record.stage(name)
        if name not in chosen:
            entry.update(state="skipped", why="it was not asked for")
            continue
        left = until - time.monotonic()
        if (reason := no_gpu(record, asked)) is not None or left < 1:
            entry.update(state="skipped", why=reason or "no time was left")
        else:
            stage = STAGES[name]
            command = [sys.executable, "-m", stage.module, *stage.arguments]
            common = {"DEVICE": asked.device, "WORK": str(work), "CORPUS": asked.corpus, "MODEL": asked.model}
            env = environment(asked, work) | {f"ALENS_STAGE_{k}": v for k, v in common.items() if v}
            run_stage(name, record, command, env, min(stage.limit_s, left))
        record.write()
        say(
            f"{name}: {entry['state']}"
            + (f" ({entry['why']})" if "why" in entry else f", {entry['seconds']} s")
        )
    return not any(entry["state"] in ("failed", "timed out") for entry in record.body["stages"].values())


def main() -> int:
    """Run the stages, tell how each went, and leave the file."""
    asked = parse()
    until = time.monotonic() + 60 * asked.minutes - SPARE_S

    def stop(number: int, _: object) -> None:
        raise Stopped(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    about = {"device": asked.device, "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "model": asked.model}
    record = Record(asked.out, **about, end="not reached: killed, or still running")
    try:
        with tempfile.TemporaryDirectory(prefix="alens-first-gpu-", ignore_cleanup_errors=True) as folder:
            whole = run(asked, record, Path(folder), until, lambda line: print(line, flush=True))
    except Stopped as why:
        for entry in record.body["stages"].values():
            entry.update({"state": "stopped"} if entry["state"] == "running" else {})
        record.body["end"] = f"stopped by {why}"
        record.write()
        return 1
    record.body["end"] = "reached"
    record.write()
    print(f"written: {asked.out}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
