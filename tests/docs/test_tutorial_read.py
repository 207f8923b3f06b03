"""The tutorial on reading: its commands run on small lenses of the demo, and its table of keys is the JSON's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "read.md"
COMMANDS = list(pages.alens_commands(PAGE))
ON_SMALL_LENSES = {"2": "3", "0": "1"}
"""Layers and heads: the tests' lenses have heads 1 and 4 of layers 0 and 3."""


def run(words: list[str], demo_lenses: Path, folder: Path, run_alens: Any) -> Any:
    command, lenses, *given = words
    assert (command, lenses) == ("read", ".demo/lenses")
    options = [
        str(folder / word) if word.endswith(".html") else ON_SMALL_LENSES.get(word, word) for word in given
    ]
    found = run_alens("read", demo_lenses, *options)
    assert found.code == 0, found.stderr
    return found


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 6


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[3:]))
def test_its_commands_run(words: list[str], demo_lenses: Path, tmp_path: Path, run_alens: Any) -> None:
    found = run(words, demo_lenses, tmp_path, run_alens)
    assert found.stdout or (tmp_path / "reading.html").stat().st_size > 10_000


def test_its_table_has_every_key(demo_lenses: Path, tmp_path: Path, run_alens: Any) -> None:
    (words,) = [words for words in COMMANDS if "--json" in words]
    (body,) = json.loads(run(words, demo_lenses, tmp_path, run_alens).stdout)
    section = PAGE.read_text().split("## As numbers")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    head = body["heads"][0]
    assert {*body, *head, *head["lens"][0], *head["lens_terms"][0]} <= named
