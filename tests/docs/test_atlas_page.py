"""docs/atlas.md: its commands run, on the demo in the place of SmolLM2."""

from pathlib import Path
from typing import Any

import pytest

from . import pages

PAGE = pages.ROOT / "docs" / "atlas.md"


@pytest.mark.slow
def test_the_commands_run(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {
        ".real/smollm2": "demo",
        "all-heads": str(demo_lenses),
        "cache": str(demo_cache),
        "23.0-4,24.4": "0.1,3.4",
    }
    heads: list[str] = []
    for arguments in pages.alens_commands(PAGE):
        few = {
            "heads": ("--sequences", 2),
            "eval": ("--rows", 32),
            "atlas": ("--rows", 16, "--judged-rows", 16),
        }
        code, out, err = run_alens(*(places.get(word, word) for word in arguments), *few[arguments[0]])
        assert code == 0, err
        if arguments[0] != "atlas":
            Path({"heads": "heads.json", "eval": "figures.json"}[arguments[0]]).write_text(out)
        else:
            heads.append(out.split("atlas of ")[1].split(" head")[0])
    assert heads == ["4", "2"]
