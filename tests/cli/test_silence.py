"""Commands as processes, with a clock on what they say: early what they do, then how far they are, to the end.

Work is made slow by real means: a vocabulary of random weights that is ten times the demo's, and many readings of it.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import demo
from alens.cli import progress_lines as lines
from alens.cli import watch
from alens.job.progress import Progress

PROMPT = "She went to the window and looked out at the rain, which had not stopped since the morning"
FIRST_S = 5.0
SILENT_S = 15.0


@dataclass
class Heard:
    """The lines of a process and when they came, in seconds after its start."""

    code: int = 0
    lines: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def longest_silence_s(self) -> float:
        times = [0.0, *(at for at, _ in self.lines), self.seconds]
        return max(later - now for now, later in itertools.pairwise(times))


def hear(*arguments: object) -> Heard:
    """Runs `alens ARGUMENTS` with its standard error in a pipe, as a job's log is."""
    heard, since = Heard(), time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "alens", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            heard.lines.append((time.monotonic() - since, line.rstrip()))
    heard.code, heard.seconds = process.returncode, time.monotonic() - since
    return heard


@pytest.fixture(scope="module")
def large_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with 60,000 tokens: all after its own are drawn, and its tokenizer knows none of them."""
    folder = tmp_path_factory.mktemp("large") / "model"
    shutil.copytree(demo.MODEL, folder)
    weights = {name: value.float() for name, value in load_file(demo.MODEL / "model.safetensors").items()}
    name = "transformer.wte.weight"
    more = torch.randn(60_000 - len(weights[name]), weights[name].shape[1], generator=torch.manual_seed(0))
    weights[name] = torch.cat([weights[name], 0.02 * more])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 60_000}))
    return folder


@pytest.mark.slow
def test_no_command_is_silent_for_long(large_vocabulary: Path, tmp_path: Path) -> None:
    store, lenses = tmp_path / "store", tmp_path / "lenses"
    rows = ("--max-rows", 4096, "--rows-per-shard", 1024, "--seq-len", 128, "--batch-size", 16)
    cache = hear("cache", large_vocabulary, "demo", store, *rows, "--exact-teacher", "--device", "cpu")
    steps = (
        "--steps",
        30,
        "--epochs",
        20,
        "--batch-rows",
        512,
        "--tolerance",
        0,
    )  # some 20 s where nothing else runs
    fit = hear("fit", store, lenses, "--layers", "0,3", "--eval-rows", 1024, *steps, "--device", "cpu")
    judged = hear("eval", lenses, store, "--device", "cpu")
    page = hear("read", lenses, PROMPT, "--html", tmp_path / "page.html", "--device", "cpu")
    for name, heard in (("cache", cache), ("fit", fit), ("eval", judged), ("read", page)):
        assert heard.code == 0, heard
        assert heard.seconds < FIRST_S or heard.lines[0][0] < FIRST_S, (name, heard)
        assert heard.longest_silence_s < SILENT_S, (name, heard)
    told = [line for _, line in fit.lines]
    assert any(line.startswith("fit ") and " left" in line for line in told), told


def test_a_thread_speaks_while_the_work_is_deep_in_one_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lines, "EARLY_S", 0.1)
    monkeypatch.setattr(lines, "EVERY_S", 0.3)
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.02)
    with watch.watching() as report:
        time.sleep(0.25)
        report(Progress(stage="loading the model"))
        time.sleep(0.6)
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("starting") and said[1] == "loading the model"
    assert said[2:] and all(line.startswith("loading the model, 0:0") for line in said[2:])
    assert not [thread for thread in threading.enumerate() if thread.name == "alens-watch"]
