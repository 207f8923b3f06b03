"""The tutorial on `alens eval` and the page on metrics: commands run, figures are all defined."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens.cli.eval_table import BASELINES, FIGURES

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "evaluate.md"
METRICS = pages.ROOT / "docs" / "metrics.md"
QUICK = {
    "cache": ["--layers", "1,2", "--seq-len", "32", "--max-rows", "2048", "--rows-per-shard", "512"],
    "fit": ["--steps", "3", "--batch-rows", "128", "--eval-rows", "496"],
    "eval": ["--rows", "200"],
}
"""Given last, so that they beat the page's own sizes."""


def test_its_commands_run_in_order(
    demo_cache: Path, demo_lenses: Path, tmp_path: Path, run_alens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "cache").symlink_to(demo_cache)
    (tmp_path / ".demo" / "lenses").symlink_to(demo_lenses)
    commands = list(pages.alens_commands(PAGE))
    assert [words[0] for words in commands] == ["eval", "eval", "cache", "fit", "fit", "eval"]
    for words in commands:
        outcome = run_alens(*words, *QUICK[words[0]], "--device", "cpu")
        assert outcome.code == 0, (words, outcome.stderr)
    found = json.loads(outcome.stdout)
    assert list(found["summary"]["wins"]) == list(BASELINES) and found["norm_is_the_models"]
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_every_figure_and_baseline_is_defined() -> None:
    text = METRICS.read_text()
    for name, (field, _) in FIGURES.items():
        assert f"| `{name}` | `{field}` |" in text
    for name in BASELINES.values():
        assert f"| {name.removesuffix(' of the layer')} |" in text
