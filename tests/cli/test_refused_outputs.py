"""What becomes of a result when the disk refuses its files, or nobody reads its table."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ONE = ("--layer", "0", "--head", "1")


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file may grow past 100 bytes, as if the disk were full; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def prompts(tmp_path: Path) -> tuple[Path, Path]:
    terms, texts = tmp_path / "terms.txt", tmp_path / "prompts.txt"
    terms.write_text("he\n")
    texts.write_text("The old man\nMy father\nThe king\n")
    return terms, texts


def arguments(name: str, lenses: Path, cache: Path, prompts: tuple[Path, Path], out: Path) -> list[Any]:
    terms, texts = prompts
    picture, curves, directions = (out / name for name in ("map.html", "curves.png", "basis.safetensors"))
    small = ("--rows", "64", "--sequences", "2", "--directions", "4", "--compare", "none")
    return {
        "locate": ["locate", lenses, *ONE, "--terms", terms, "--prompts", texts, "--permutations", "9", "--heat-map", picture],
        "compare": ["compare", lenses, *ONE, "--clean", "He", "--suspect", "She", "--heat-map", picture],
        "eval": ["eval", lenses, cache, "--layers", "0", "--rows", "64", "--heat-map", picture],
        "heads": ["heads", "demo", "--sequences", "1", "--length", "8", "--heat-map", picture],
        "transfer": ["transfer", lenses, cache, "--layers", "0", "--rows", "64", "--heat-map", picture],
        "inject": ["inject", lenses, "He was", *ONE, "--tokens", "he", "--strength", "1", "--random", "0", "--plot", curves],
        "basis": ["basis", lenses, cache, *ONE, *small, "--save", directions],
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ["locate", "compare", "eval", "heads", "transfer", "inject", "basis"])
def test_a_result_is_printed_though_its_file_cannot_be_written(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, prompts: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / "out").mkdir()
    with no_room():
        outcome = run_alens(*arguments(name, demo_lenses, demo_cache, prompts, tmp_path / "out"), "--json")
    assert outcome.code == 1 and "cannot write" in outcome.stderr
    assert json.loads(outcome.stdout)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_standard_output_is_named(demo_lenses: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "alens", "info", str(demo_lenses)], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert (
        done.stderr == b"alens: the result could not be written to standard output: No space left on device\n"
    )


def test_a_picture_is_written_though_nobody_reads_the_table(
    demo_lenses: Path, demo_cache: Path, prompts: tuple[Path, Path], tmp_path: Path
) -> None:
    given = arguments("locate", demo_lenses, demo_cache, prompts, tmp_path)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "alens", *map(str, given)], stdout=nobody, stderr=subprocess.PIPE
        )
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert (tmp_path / "map.html").is_file()
