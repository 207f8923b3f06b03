"""The tutorial on transfer: its commands run, on small caches in place of the demo's."""

import os
from pathlib import Path
from unittest import mock

import pytest

from alens import FitRequest, fit_lenses
from alens.fit.settings import FitSettings

from . import pages

PAGE = pages.ROOT / "docs" / "tutorials" / "transfer.md"
COMMANDS = [words for words in pages.alens_commands(PAGE) if words[0] == "transfer"]
SMALLER = {"--rows": "64", "--heads": "1,4"}
"""The lenses of the tests have heads 1 and 4 of layers 0 and 3."""


@pytest.fixture(scope="module")
def copy_lenses(rotated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lenses = tmp_path_factory.mktemp("copy") / "lenses"
    settings = FitSettings(layers=(0, 3), heads=(1, 4), steps=3, batch_rows=128, eval_rows=1024)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=rotated_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses


def test_the_page_has_commands() -> None:
    assert [words[1:3] for words in COMMANDS] == [[".demo/lenses", ".demo/cache"]] * 4


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[3:5]))
def test_its_commands_run(
    words: list[str],
    demo_lenses: Path,
    demo_cache: Path,
    rotated_cache: Path,
    copy_lenses: Path,
    tmp_path: Path,
    run_alens,
) -> None:
    places = {
        ".demo/lenses": demo_lenses,
        ".demo/cache": demo_cache,
        ".demo/transfer/copy-cache": rotated_cache,
        ".demo/transfer/copy-lenses": copy_lenses,
        "transfer.png": tmp_path / "transfer.png",
        "heads.html": tmp_path / "heads.html",
    }
    given = [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    more = [] if "--rows" in words else ["--rows", "64"]
    found = run_alens(*(places.get(word, word) for word in given), *more, "--device", "cpu")
    assert found.code == 0, found.stderr
    assert "mean output (no lens): KL" in found.stdout
    if "--heat-map" in words:
        assert places[words[words.index("--heat-map") + 1]].is_file()
