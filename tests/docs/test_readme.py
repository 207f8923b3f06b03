"""The README is short, its Python runs, and its demo commands are those of docs/demo.sh."""

import os
import subprocess
from pathlib import Path

import pytest

from . import pages

README = pages.ROOT / "README.md"
DEMO = pages.ROOT / "docs" / "demo.sh"


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_its_python_runs(
    demo_lenses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [fence.text for fence in pages.fences(README) if fence.language == "python"]
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "lenses").symlink_to(demo_lenses)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["3", "1"], ["3", "4"]]


def test_the_job_folders_hold_no_python() -> None:
    for folder in ("cache_jobs", "train_jobs"):
        assert not list((pages.ROOT / folder).rglob("*.py"))


def run_demo(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """docs/demo.sh with an `alens` that does nothing."""
    stand_in = folder / "bin" / "alens"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text("#!/bin/sh\n")
    stand_in.chmod(0o755)
    return subprocess.run(
        ["bash", str(DEMO), *arguments],
        cwd=folder,
        env={**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_the_demo_commands_in_the_readme_are_those_of_the_script(tmp_path: Path) -> None:
    done = run_demo(tmp_path, ".demo")
    assert done.returncode == 0, done.stderr
    shown = [line.removeprefix("$ ") for line in done.stdout.splitlines() if line.startswith("$ ")]
    (block,) = [
        fence.text for fence in pages.fences(README) if fence.text.startswith("alens cache demo demo")
    ]
    assert block.splitlines() == shown


def test_the_demo_starts_anew_and_removes_only_what_it_made(tmp_path: Path) -> None:
    assert run_demo(tmp_path, "w").returncode == 0
    for made in ("cache", "lenses"):
        (tmp_path / "w" / made).mkdir()
    (tmp_path / "w" / "notes").write_text("mine")
    assert run_demo(tmp_path, "w").returncode == 0
    assert not (tmp_path / "w" / "cache").exists() and not (tmp_path / "w" / "lenses").exists()
    assert (tmp_path / "w" / "notes").read_text() == "mine"


def test_the_demo_leaves_a_directory_alone_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "w" / "cache").mkdir(parents=True)
    done = run_demo(tmp_path, "w")
    assert done.returncode == 2 and "name another directory" in done.stderr
    assert (tmp_path / "w" / "cache").exists()


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_the_demo_wants_one_directory(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_demo(tmp_path, *arguments)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
