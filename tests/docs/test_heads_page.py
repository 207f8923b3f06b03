"""docs/heads.md: its commands run, on the demo in the place of SmolLM2."""

from pathlib import Path
from typing import Any

import pytest

from . import pages

PAGE = pages.ROOT / "docs" / "heads.md"


def test_the_commands_run(run_alens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in pages.alens_commands(PAGE):
        words = ["demo" if word == ".real/smollm2" else word for word in arguments]
        code, out, err = run_alens(*words, "--sequences", 2, "--length", 16, "--device", "cpu")
        assert code == 0, err
        assert "first-token" in out and "copying" in out
    assert {path.name for path in tmp_path.iterdir()} == {"induction.png", "copying.html"}
