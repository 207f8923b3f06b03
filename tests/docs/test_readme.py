"""The README's tree matches the files, and its demo commands are those of docs/demo.sh."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import pages

README = pages.ROOT / "README.md"
PACKAGE = pages.ROOT / "pipeline" / "alens"
DEMO = pages.ROOT / "docs" / "demo.sh"


def tree() -> Iterator[tuple[str, str]]:
    """(path, note) of each line of the annotated tree."""
    (block,) = [fence.text for fence in pages.fences(README) if "\npipeline/alens/\n" in fence.text]
    above: list[tuple[int, str]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        name, _, note = line.strip().partition("  ")
        above = [(depth, folder) for depth, folder in above if depth < indent]
        path = "".join(folder for _, folder in above) + name
        if name.endswith("/"):
            above.append((indent, name))
        yield path, note.strip()


def package_files() -> set[str]:
    return {str(path.relative_to(pages.ROOT)) for path in PACKAGE.rglob("*.py")}


def test_the_tree_has_every_module() -> None:
    listed = {path for path, _ in tree() if path.startswith("pipeline/")}
    assert package_files() - listed == set()


def test_what_the_tree_lists_is_there() -> None:
    for path, _ in tree():
        assert (pages.ROOT / path).is_dir() if path.endswith("/") else (pages.ROOT / path).is_file(), path


def test_the_tree_says_what_each_file_is() -> None:
    for path, note in tree():
        assert note or path.endswith("__init__.py") or path == "pipeline/alens/", path


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
