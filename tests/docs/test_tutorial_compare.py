"""The page on comparing: its commands run, on small lenses of the demo, and its files are what it says."""

from pathlib import Path
from typing import Any

import pytest

from alens.reading.prompts import read_prompts

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "compare.md"
COMMANDS = list(pages.alens_commands(PAGE))
EXAMPLES = PAGE.parent / "examples"
QUICK = ["--resamples", "19", "--layer", "0", "--device", "cpu"]


def test_the_page_has_commands() -> None:
    assert [words[0] for words in COMMANDS] == ["compare", "compare"]


@pytest.mark.parametrize("words", COMMANDS, ids=["prompts", "files"])
def test_its_commands_run(
    words: list[str], demo_lenses: Path, run_alens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(pages.ROOT / "docs")
    assert words[1] == ".demo/lenses"
    found = run_alens("compare", demo_lenses, *words[2:], *QUICK)
    assert found.code == 0, found.stderr
    files = "--paired" in words
    assert ("lenses, contrast" in found.stdout) == files
    assert max(map(len, found.stdout.splitlines())) <= 80
    assert {path.name for path in tmp_path.iterdir()} == {"docs"} | (
        {"roc.png", "change.png"} if files else set()
    )


def test_the_files_are_pairs_that_differ_in_one_sentence() -> None:
    clean, suspect = (read_prompts(EXAMPLES / f"compare-{name}.txt") for name in ("clean", "suspect"))
    assert len(clean) == len(suspect) == len({prompt.text for prompt in clean + suspect}) / 2 == 30
    for one, other in zip(clean, suspect, strict=True):
        (first, middle, last), (same, changed, end) = (p.text.split(". ") for p in (one, other))
        assert (first, last) == (same, end) and middle != changed
