"""Standard output and standard error that are closed, full, or read by nobody: the exit code speaks of the work.

Real processes, with the descriptors as a shell would leave them.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alens.cli import COMMANDS
from alens.cli.console import LossyStream

from ..folders import array_hashes
from ..object_servers import S3Server

FORMS = {
    "closed output": ">&-",
    "full output": ">/dev/full",
    "closed error": "2>&-",
    "full error": "2>/dev/full",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
    "both full": ">/dev/full 2>/dev/full",
}
LOSES_OUTPUT = [
    name for name, form in FORMS.items() if form.split()[0] != "2>&-" and ">" in form and form[0] != "2"
]


def shell(form: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`alens ARGUMENTS` with its streams redirected as a shell does."""
    command = [sys.executable, "-m", "alens", *map(str, arguments)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {form}', "sh", *command], capture_output=True, text=True, timeout=400
    )


@contextlib.contextmanager
def nobody_reads() -> Iterator[int]:
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("form", FORMS)
def test_a_result_that_is_lost_is_an_error(small: Path, form: str) -> None:
    done = shell(FORMS[form], "info", small)
    assert done.returncode == (1 if form in LOSES_OUTPUT else 0)
    if "error" not in form and form.endswith("output"):
        (line,) = done.stderr.splitlines()
        assert line.startswith("alens: the result could not be written to standard output: ")
    if form not in LOSES_OUTPUT:
        assert done.stdout.startswith("cache: ")


def test_help_that_is_lost_is_an_error() -> None:
    assert shell(">/dev/full", "--help").returncode == 1


def test_a_reader_that_has_left_is_told_nothing(small: Path) -> None:
    with nobody_reads() as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "alens", "info", str(small)], stdout=pipe, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_cache_is_written_though_every_stream_is_closed(
    small: Path,
    small_options: list[str],
    tmp_path: Path,
) -> None:
    """And none of its files becomes standard error, where a library would write into it."""
    assert shell("<&- >&- 2>&-", "cache", "demo", "demo", tmp_path / "store", *small_options).returncode == 0
    assert array_hashes(tmp_path / "store") == array_hashes(small)


@pytest.mark.parametrize("form", ["closed output", "both full"])
def test_verify_says_by_its_code_whether_a_cache_is_whole(
    small: Path, copy_of: Callable[[Path], Path], form: str
) -> None:
    damaged = copy_of(small)
    (damaged / "tokens.npy").write_bytes(b"other")
    assert [shell(FORMS[form], "verify", store).returncode for store in (small, damaged)] == [0, 1]


def test_json_is_json_where_the_stream_has_no_utf_8(
    run_alens_process: Any, small: Path, tmp_path: Path
) -> None:
    link = tmp_path / "字é😀"
    link.symlink_to(small)
    outcome = run_alens_process("info", link, "--json", env={"PYTHONIOENCODING": "ascii"})
    assert outcome.stdout.isascii() and json.loads(outcome.stdout)["cache"] == str(link)
    shown = run_alens_process("info", link, env={"PYTHONIOENCODING": "ascii"})
    assert shown.code == 0 and r"\u5b57\xe9\U0001f600" in shown.stdout


def test_a_stream_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    """A log on a disk that was full for a while."""
    file = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    stream = LossyStream(os.open("/dev/full", os.O_WRONLY), encoding="utf-8", closed=False)
    print("lost", file=stream)
    assert stream.lost is not None and stream.lost.strerror == "No space left on device"
    os.dup2(file, stream.fileno())
    print("kept\x1b[2J", file=stream)
    stream.unescaped.write("\x1b[0m")
    assert (tmp_path / "log").read_text() == "kept\\x1b[2J\n\x1b[0m"


def test_a_pipe_that_does_not_wait_loses_nothing() -> None:
    """Others may have made it non-blocking; it holds 64 KiB."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    reader = subprocess.Popen(["sh", "-c", "sleep 0.2; cat | wc -c"], stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    LossyStream(write, encoding="utf-8", closed=False).write("x" * 1_000_000)
    os.close(write)
    assert int(reader.communicate()[0]) == 1_000_000


WORKS = (
    "cache",
    "effects",
    "jacobians",
    "fit",
    "sweep",
    "atlas",
    "verify",
    "push",
    "export",
    "import",
    "publish",
)
"""What they print only says what they did; the exit code is that of the work."""


def every_command(lenses: Path, cache: Path, folder: Path, place: str) -> dict[str, list[Any]]:
    """Quick arguments of each command; what is written goes to `folder`, or to the address `place`."""
    one, few = ("--layer", "0", "--head", "1"), ("--layers", "0", "--rows", "64")
    terms, prompts, grid = folder / "terms.txt", folder / "prompts.txt", folder / "grid.toml"
    terms.write_text("he\n")
    prompts.write_text("The old man\nMy father\nThe king\n")
    fit = ("--layers", "0", "--heads", "1", "--eval-rows", "1024", "--steps", "2", "--device", "cpu")
    grid.write_text("layers = [0]\nheads = [1]\neval_rows = 1024\nsteps = 2\n[grid]\nlr = [0.01, 0.03]\n")
    small = ("--sequences", "2", "--directions", "4", "--compare", "none")
    return {
        "plan": ["plan", "demo", "demo", folder / "store", "--max-rows", "512", "--seq-len", "32", "--rows-per-shard", "128", "--probe-seconds", "0.1"],
        "fit": ["fit", cache, folder / "fit", *fit],
        "sweep": ["sweep", grid, cache, folder / "sweep", "--device", "cpu"],
        "eval": ["eval", lenses, cache, *few],
        "heads": ["heads", "demo", "--sequences", "1", "--length", "8"],
        "read": ["read", lenses, "He was", *one],
        "atlas": ["atlas", lenses, cache, "--html", folder / "atlas", "--rows", "8", "--judged-rows", "16", "--roles", "none"],
        "locate": ["locate", lenses, *one, "--terms", terms, "--prompts", prompts, "--permutations", "9"],
        "compare": ["compare", lenses, *one, "--clean", "He", "--suspect", "She"],
        "inject": ["inject", lenses, "He was", *one, "--tokens", "he", "--strength", "1", "--random", "0"],
        "basis": ["basis", lenses, cache, *one, "--rows", "64", *small],
        "transfer": ["transfer", lenses, cache, *few],
        "export": ["export", lenses, folder / "export", "--form", "z"],
        "import": ["import", folder / "export", folder / "import", "--model", "demo"],
        "publish": ["publish", lenses, "--repo", "me/lenses", "--out", folder / "bundle"],
        "effects": ["effects", shutil.copytree(cache, folder / "measured"), *few],
        "jacobians": ["jacobians", shutil.copytree(cache, folder / "derived"), *few, "--probes", "1"],
        "info": ["info", cache],
        "verify": ["verify", cache],
        "push": ["push", cache, place],
        "fidelity": ["fidelity", cache, "--rows", "256", "--no-fit"],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", ["all closed", "closed pipes"])
def test_every_command_ends_with_the_code_of_its_work(
    demo_lenses: Path, demo_cache: Path, tmp_path: Path, s3: S3Server, form: str
) -> None:
    commands = every_command(demo_lenses, demo_cache, tmp_path, f"s3://{s3.new_bucket()}/cache")
    assert {*commands, "cache"} == set(COMMANDS)
    codes = {}
    for name, arguments in commands.items():
        if form == "closed pipes":
            with nobody_reads() as pipe:
                command = [sys.executable, "-m", "alens", *map(str, arguments)]
                codes[name] = subprocess.run(command, stdout=pipe, stderr=pipe).returncode
        else:
            codes[name] = shell(FORMS[form], *arguments).returncode
    assert codes == {name: 0 if name in WORKS else 1 for name in commands}
    for written in (
        "fit/lens.json",
        "sweep/table.md",
        "export/config.json",
        "import/lens.json",
        "bundle/README.md",
    ):
        assert (tmp_path / written).is_file(), written
    undisturbed = tmp_path / "undisturbed"
    assert shell("", "fit", demo_cache, undisturbed, *commands["fit"][3:]).returncode == 0
    weights = "layer-00.safetensors"
    assert (tmp_path / "fit" / weights).read_bytes() == (undisturbed / weights).read_bytes()


@pytest.mark.parametrize("place", ["-", "/dev/stdout"])
def test_a_page_is_a_file_not_a_stream(run_alens: Any, demo_lenses: Path, place: str) -> None:
    outcome = run_alens("read", demo_lenses, "He was", "--html", place)
    assert outcome.code == 2 and "name such a file" in outcome.stderr and outcome.stdout == ""
