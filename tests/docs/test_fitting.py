"""The page on fitting: its commands run, on a small cache of the demo in place of GPT-2's."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from alens import CacheRequest, load_lenses, write_cache
from alens.fit.objectives import OBJECTIVES
from alens.lens.designs import DESIGNS
from alens.store.schema import CacheSettings

from . import pages

PAGE = pages.ROOT / "docs" / "fitting.md"
ADDITIONS = {"effects", "effect-lenses", "jacobians", "jacobian-lenses"}
"""Words of commands that measure what heads add, and fit lenses of it."""

COMMANDS = [
    words for words in pages.alens_commands(PAGE) if not {"all", "known", *ADDITIONS} & set(words)
]  # the first is torchrun's, and other tests fit heads by name
QUICK = ["--steps", "3", "--batch-rows", "128", "--eval-rows", "256", "--device", "cpu"]
ON_THE_DEMO = {"5": "1", "11": "3"}
"""Layers: the demo has four."""


@pytest.fixture(scope="module")
def cache_with_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("sites") / "cache"
    settings = CacheSettings(
        seq_len=64,
        rows_per_shard=256,
        max_rows=1024,
        layers=(1, 3),
        sites=("resid_post",),
        exact_teacher=True,
    )
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    return store


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[2])
def test_its_commands_run(words: list[str], cache_with_sites: Path, tmp_path: Path, run_alens) -> None:
    store, lenses, *options = words[1:]
    assert store == "gpt2-cache"
    given = [ON_THE_DEMO.get(word, word) for word in options]
    outcome = run_alens("fit", cache_with_sites, tmp_path / lenses, *given, *QUICK)
    assert outcome.code == 0, outcome.stderr
    record = load_lenses(tmp_path / lenses).record
    assert len(record.layers) == 1 and record.fit["steps"] == 3


def test_effects_and_jacobians_are_measured_fitted_and_read_as_shown(
    document_cache: Path,
    demo_lenses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_alens: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(document_cache, "gpt2-cache")
    Path("other-cache").symlink_to("gpt2-cache")
    Path("lenses").symlink_to(demo_lenses)
    shown = [words for words in pages.alens_commands(PAGE) if ADDITIONS & set(words)]
    assert len(shown) == 7
    for words in shown:
        few = ["512" if word == "4096" else word for word in words]
        if few[0] == "jacobians":
            few += ["--probes", "8"]
        outcome = run_alens(*few)
        assert outcome.code == 0, (few, outcome.stderr)
    assert "jacobian" in outcome.stdout


def test_every_design_and_objective_is_in_its_tables() -> None:
    text = PAGE.read_text()
    for name in (*DESIGNS, *OBJECTIVES):
        assert f"| `{name}` |" in text
