"""A small atlas of the demo, made once by the command."""

import json
from pathlib import Path

import pytest

from alens import cli

ROWS, JUDGED_ROWS = 300, 64
HEADS = [(0, 1), (0, 4), (3, 1), (3, 4)]


@pytest.fixture(scope="session")
def roles_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores as `alens heads --json` writes them: 3.4 is first in one family, 0.1 in the other."""
    scores = {
        name: [
            {
                "layer": layer,
                "head": head,
                "score": 0.25 if (layer, head) == first else 0.125,
                "control": 0.0625,
            }
            for layer, head in HEADS
        ]
        for name, first in (("induction", (3, 4)), ("<copying>", (0, 1)))
    }
    file = tmp_path_factory.mktemp("roles") / "heads.json"
    file.write_text(json.dumps({"families": scores}))
    return file


@pytest.fixture(scope="session")
def atlas(
    demo_lenses: Path, demo_cache: Path, roles_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The directory. Shared: never write to it, copy it."""
    folder = tmp_path_factory.mktemp("shared") / "atlas"
    few = ("--rows", ROWS, "--judged-rows", JUDGED_ROWS, "--roles", roles_file)
    given = ("atlas", demo_lenses, demo_cache, "--html", folder, *few)
    assert cli.run([str(word) for word in given]) == 0
    return folder
