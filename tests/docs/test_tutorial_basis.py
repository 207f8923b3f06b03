"""The page on causal bases: its commands and its Python run, on a small cache of the demo."""

from pathlib import Path
from typing import Any

import pytest

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "basis.md"
COMMANDS = list(pages.alens_commands(PAGE))
ON_SMALL_LENSES = {"1,3": "1,4", "--sequences": "--seed=0 --rows=64 --directions=4 --sequences", "4": "2"}
"""The small lenses are of heads 1 and 4, and the small cache has few sequences."""


def test_the_page_runs(
    demo_lenses: Path, demo_cache: Path, tmp_path: Path, run_alens: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 2
    for words in COMMANDS:
        assert words[:3] == ["basis", ".demo/lenses", ".demo/cache"]
        given = [part for word in words[3:] for part in ON_SMALL_LENSES.get(word, word).split()]
        found = run_alens("basis", demo_lenses, demo_cache, *given, "--device", "cpu")
        assert found.code == 0, found.stderr
        assert "By layer" in found.stdout
    assert (tmp_path / "rho.png").stat().st_size > 1000
    (code,) = [fence.text for fence in pages.fences(PAGE) if fence.language == "python"]
    exec(compile(code, str(PAGE), "exec"), {})
    assert "tensor([" in capsys.readouterr().out


def test_the_page_names_every_choice() -> None:
    text = PAGE.read_text()
    for name in ("mean", "resample", "raw", "unembedding", "principal", "random"):
        assert f"`{name}`" in text or f" {name}`" in text, name
