"""docs/questions.md: what it does with results runs on small lenses of the demo; its exit codes are the reference's."""

import re
from pathlib import Path
from typing import Any

import pytest

from alens.cli.reference import EXIT_CODES

from . import pages

PAGE = pages.ROOT / "docs" / "questions.md"


def test_results_go_into_pandas(
    demo_lenses: Path,
    demo_cache: Path,
    tmp_path: Path,
    run_alens: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    there = {".demo/lenses": str(demo_lenses), ".demo/cache": str(demo_cache)}
    commands = [words for words in pages.alens_commands(PAGE) if "--json" in words]
    assert [words[0] for words in commands] == ["eval", "read"]
    for words in commands:
        outcome = run_alens(*(there.get(word, word) for word in words))
        assert outcome.code == 0, outcome.stderr
        (tmp_path / f"{words[0]}.json").write_text(outcome.stdout)
    (code,) = [fence.text for fence in pages.fences(PAGE) if fence.language == "python"]
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert list(names["heads"].index) == [(0, 1), (0, 4), (3, 1), (3, 4)]
    mean_output = names["result"]["readings"][0]["kl"]
    assert names["heads"]["gain"].to_list() == pytest.approx(mean_output - names["heads"]["lens"])
    assert len(names["tokens"]) == 4 * 8
    assert "unembedding" in capsys.readouterr().out


def test_the_exit_codes_are_all_there() -> None:
    section = PAGE.read_text().split("## What do exit codes mean?")[1].split("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == EXIT_CODES.keys()
