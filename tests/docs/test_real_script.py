"""docs/real.sh, with an `alens` that does nothing: what it runs, what it removes, and where there is no network."""

import os
import subprocess
from pathlib import Path

import pytest

from . import pages

SCRIPT = pages.ROOT / "docs" / "real.sh"
MADE = ("cache", "all-heads", "six-heads")


def run_script(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    stand_in = folder / "bin" / "alens"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text("#!/bin/sh\n")
    stand_in.chmod(0o755)
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def commands(done: "subprocess.CompletedProcess[str]") -> list[list[str]]:
    """The words of each `alens` command that was shown."""
    assert done.returncode == 0, done.stderr
    return [line.split()[2:] for line in done.stdout.splitlines() if line.startswith("$ alens ")]


@pytest.fixture
def with_model(tmp_path: Path) -> Path:
    """A working directory in which an earlier run left the model."""
    (tmp_path / ".real" / "smollm2").mkdir(parents=True)
    return tmp_path


def test_without_a_network_one_line_says_so(tmp_path: Path) -> None:
    done = run_script(tmp_path, ".real")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "cannot be downloaded here" in line and "by hand" in line
    assert "$ alens" not in done.stdout


def test_it_goes_from_the_plan_to_the_readings(with_model: Path) -> None:
    shown = commands(run_script(with_model, ".real"))
    names = [words[0] for words in shown]
    assert names == ["plan", "cache", "info", "fit", "fit", "eval", "eval", "read", "read"]
    assert shown[0][1:] == shown[1][1:]
    assert shown[0][2].endswith("benchmarks/real/stories.parquet") and "--document-column" in shown[0]


def test_another_text_can_be_named(with_model: Path) -> None:
    plan, cache, *_ = commands(run_script(with_model, ".real", "novels", "--document-column", "book"))
    assert plan[2:6] == cache[2:6] == ["novels", ".real/cache", "--document-column", "book"]


def test_it_starts_anew_with_the_model_that_is_there(with_model: Path) -> None:
    run_script(with_model, ".real")
    for made in MADE:
        (with_model / ".real" / made).mkdir()
    (with_model / ".real" / "notes").write_text("mine")
    assert run_script(with_model, ".real").returncode == 0
    assert {path.name for path in (with_model / ".real").iterdir()} == {".alens-real", "smollm2", "notes"}


@pytest.mark.parametrize("made", MADE)
def test_it_leaves_alone_what_it_did_not_make(with_model: Path, made: str) -> None:
    (with_model / ".real" / made).mkdir()
    done = run_script(with_model, ".real")
    assert done.returncode == 2 and "name another directory" in done.stderr
    assert (with_model / ".real" / made).exists()


def test_it_wants_a_directory(tmp_path: Path) -> None:
    done = run_script(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


def test_an_atlas_is_made_where_it_is_asked_for(with_model: Path) -> None:
    made = [
        command
        for variables in ({}, {"ATLAS": "1"})
        for command in commands(run_script(with_model, ".real", **variables))
        if command[0] == "atlas"
    ]
    assert made == [["atlas", ".real/all-heads", ".real/cache", "--html", ".real/atlas"]]
