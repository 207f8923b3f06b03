"""The tutorial on injecting: its commands run, on small lenses of the demo."""

from pathlib import Path

import pytest

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "inject.md"
COMMANDS = list(pages.alens_commands(PAGE))
QUICK = {"2048": "300", "-4,-2,0,2,4": "0,4", "0-5": "0-1"}


def test_the_page_adds_and_takes_away() -> None:
    assert [words[0] for words in COMMANDS] == ["inject"] * 3
    assert sum("--ablate" in words for words in COMMANDS) == 1


@pytest.mark.parametrize("words", COMMANDS, ids=["add", "covariance", "ablate"])
def test_its_commands_run(
    words: list[str], demo_lenses: Path, tmp_path: Path, run_alens, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [QUICK.get(word, word) for word in words]
    given = [str(pages.ROOT / word) if word.startswith("docs/") else word for word in given]
    assert given[1] == ".demo/lenses"
    monkeypatch.chdir(tmp_path)
    found = run_alens("inject", demo_lenses, *given[2:])
    assert found.code == 0, found.stderr
    assert "nats a token more" in found.stdout
    assert (tmp_path / "she.png").exists() == ("--plot" in words)
