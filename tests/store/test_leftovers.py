"""Leftovers of killed processes go with the next run that writes the same files. Files that are being written stay."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alens.exchange.folder import whole_folder
from alens.store import durable, leftovers, one_writer
from alens.store.result_file import write

WRITER = """
import sys, time
from pathlib import Path
from alens.exchange.folder import whole_folder
from alens.store import durable

path = Path(sys.argv[2])
if sys.argv[1] == "file":
    def parts():
        yield b"x" * 1000
        print("writing", flush=True)
        time.sleep(600)

    durable.put_stream(path, parts())
else:
    with whole_folder(path) as folder:
        (folder / "weights").write_bytes(b"x" * 1000)
        print("writing", flush=True)
        time.sleep(600)
"""


class Writers:
    """Processes that are writing."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, kind: str, path: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, kind, str(path)], stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        return process

    def killed(self, kind: str, path: Path) -> None:
        process = self.start(kind, path)
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    for process in writers.running:
        process.kill()
        process.communicate()


def partials(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[1] for path in folder.iterdir() if path.name.endswith(durable.PARTIAL))


def test_a_killed_export_is_cleared_by_the_next_and_a_live_one_is_not(
    writers: Writers, tmp_path: Path
) -> None:
    writers.start("folder", tmp_path / "out")
    writers.killed("folder", tmp_path / "out")
    writers.killed("folder", tmp_path / "other")
    assert partials(tmp_path) == ["other", "out", "out"]
    with whole_folder(tmp_path / "out") as folder:
        (folder / "weights").write_bytes(b"new")
    assert partials(tmp_path) == ["other", "out"]  # of the live one, and of another command
    assert (tmp_path / "out/weights").read_bytes() == b"new"


def test_a_killed_page_is_cleared_by_the_next_and_a_live_one_is_not(writers: Writers, tmp_path: Path) -> None:
    writers.killed("file", tmp_path / "page.html")
    writers.killed("file", tmp_path / "page.html.html")
    writers.start("file", tmp_path / "page.html")
    write(tmp_path / "page.html", b"new")
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(durable.PARTIAL))
    assert len(left) == 2 and left[0].startswith(".page.html.html.")
    assert str(writers.running[-1].pid) in left[1]  # and of a file whose name goes on


def test_who_holds_a_directory_clears_what_only_fits_write(writers: Writers, tmp_path: Path) -> None:
    writers.killed("file", tmp_path / "layer-00.safetensors")
    foreign = tmp_path / ".fit.json.node.example.org-17-0123abcd.partial"
    picture = tmp_path / ".heat.png.node.example.org-17-0123abcd.partial"
    link = tmp_path / ".lens.json.node-17-0123abcd.partial"
    for path in (foreign, picture):
        path.write_bytes(b"")
    (tmp_path / "mine").mkdir()
    link.symlink_to(tmp_path / "mine")
    with one_writer.claimed(tmp_path):
        assert partials(tmp_path) == ["heat"]
    assert (tmp_path / "mine").is_dir()


def test_of_another_host_it_goes_after_a_day(tmp_path: Path) -> None:
    fresh, old = (tmp_path / f".out.elsewhere-1-{n}0000000.partial" for n in "ab")
    for path in (fresh, old):
        path.mkdir()
        (path / "weights").write_bytes(b"")
    before = time.time() - leftovers.ABANDONED_S - 60
    os.utime(old, (before, before))
    leftovers.clear(tmp_path / "out")
    assert fresh.exists() and old.exists()  # something in it was changed today
    os.utime(old / "weights", (before, before))
    leftovers.clear(tmp_path / "out")
    assert fresh.exists() and not old.exists()


@pytest.mark.parametrize("name", ["out.partial", ".out.partial", ".out.x.partial", ".out.host-1-12345678", ".outer.host-1-12345678.partial"])  # fmt: skip
def test_other_names_stay(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.replace("host", socket.gethostname())
    path.write_text("mine")
    leftovers.clear(tmp_path / "out")
    leftovers.clear_held(tmp_path, "out")
    assert path.exists()


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    leftovers.clear(tmp_path / "no/where")
