"""The page on bias localisation: its commands run on the demo, and its examples are as it says."""

from pathlib import Path
from typing import Any

import pytest

from alens.model import models
from alens.reading.prompts import read_prompts
from alens.reading.terms import read_terms, to_tokens

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "locate.md"
EXAMPLES = PAGE.parent / "examples"
COMMANDS = list(pages.alens_commands(PAGE))


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("words", COMMANDS, ids=["controls", "none"])
def test_its_commands_run(
    words: list[str], demo_lenses: Path, tmp_path: Path, run_alens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = {".demo/lenses": str(demo_lenses)}
    given = [str(pages.ROOT / word) if word.startswith("docs/") else there.get(word, word) for word in words]
    found = run_alens(*given)
    assert found.code == 0, found.stderr
    for name in ("locate.png", "locate.html"):
        assert (tmp_path / name).is_file() == (name in words)


def test_the_examples_are_pairs_and_single_tokens() -> None:
    men, women = (read_prompts(EXAMPLES / f"locate-{name}.txt") for name in ("men", "women"))
    assert len(men) == len(women) == 10
    for ours, theirs in zip(men, women, strict=True):
        assert ours.text != theirs.text and ours.text.split()[-3:] == theirs.text.split()[-3:]
    tokenizer, _ = models.load_tokenizer(models.find("demo"))
    assert to_tokens(read_terms(EXAMPLES / "locate-terms.txt"), tokenizer)
