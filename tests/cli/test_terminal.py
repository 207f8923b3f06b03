"""`alens` on a terminal: only what rich draws controls it, and the work outlives it."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alens.store.cache_reader import open_cache

from .. import documents
from ..fake_hub import Hub

DRAWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
"""What rich sends: colours, the cursor, lines to be drawn again."""


class Terminal:
    """A process on a terminal of its own, read by a thread as a person would."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alens", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
            start_new_session=True,
        )
        os.close(theirs)
        self._said = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._ours, 65536):
                self._said += piece
        except OSError:
            pass

    @property
    def text(self) -> str:
        return self._said.decode()

    def until(self, what: Callable[[], bool]) -> None:
        while not what():
            assert self.process.poll() is None, self.text
            self._reader.join(0.02)

    def end(self) -> tuple[int, str]:
        """The exit code, and everything that was shown."""
        code = self.process.wait(timeout=400)
        self._reader.join(timeout=60)
        return code, self.text

    def vanish(self) -> None:
        """Close the terminal, like a window that sends no signal."""
        devnull = os.open(os.devnull, os.O_RDWR)
        os.dup2(devnull, self._ours)
        os.close(devnull)


def test_lenses_of_a_stranger_on_the_hub(hub: Hub, demo_lenses: Path, tmp_path: Path, copy_of: Any) -> None:
    """While files are fetched and shown, the library draws no bar, and a stranger's names do not control the terminal."""
    lenses = copy_of(demo_lenses)
    attack = "\x1b]52;c;cm0gLXJmIC8=\x07\x1b[1A\x1b[2K\rverified OK"
    documents.edit(lenses / "lens.json", lambda body: body["model"].update(id=attack))
    hub.publish("me/lenses", {"lens.json": (lenses / "lens.json").read_bytes()})
    terminal = Terminal("info", "hf://me/lenses", env=hub.environment(tmp_path))
    code, said = terminal.end()
    assert code == 0, said
    assert r"model: \x1b]52;c;cm0gLXJmIC8=\x07\x1b[1A\x1b[2K\rverified OK: GPT2" in said
    drawn = DRAWN.sub("", said)
    assert "\x1b" not in drawn and "\x07" not in drawn
    assert "Fetching" not in said and "\\r\\x1b" not in said


def test_work_outlives_its_terminal(small_options: list[str], tmp_path: Path) -> None:
    store = tmp_path / "store"
    options = ["2048" if option == "512" else option for option in small_options]
    terminal = Terminal("cache", "demo", "demo", store, *options)
    terminal.until(lambda: (store / "commits").is_dir() and len(list((store / "commits").iterdir())) > 1)
    before = len(list((store / "commits").iterdir()))
    terminal.vanish()
    assert terminal.process.wait(timeout=400) == 0
    assert open_cache(store).sealed and before < 16


def test_json_on_a_terminal_is_json(small: Path) -> None:
    """Below the bars of standard error, which are drawn and removed."""
    code, said = Terminal("info", small, "--json").end()
    assert code == 0 and json.loads(DRAWN.sub("", said))["cache"] == str(small)
