"""What people pass on, pages, pictures, exports and bundles, calls a model of one's own by its name, not by its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .. import documents

PLACE = "/home/ada/models/secret-gpt"


@pytest.fixture
def private(demo_lenses: Path, demo_cache: Path, copy_of: Callable[[Path], Path]) -> tuple[Path, Path]:
    """Lenses and their cache, of a model and a text in somebody's home."""
    lenses, store = copy_of(demo_lenses), copy_of(demo_cache)
    documents.edit(lenses / "lens.json", lambda body: body["model"].update(id=PLACE))
    documents.edit(store / "plan.json", lambda body: body["model"].update(id=PLACE))
    documents.edit(store / "plan.json", lambda body: body["corpus"].update(id="/home/ada/texts"))
    return lenses, store


def test_no_file_for_others_says_where_the_model_lies(
    run_alens: Any, private: tuple[Path, Path], tmp_path: Path
) -> None:
    lenses, store = private
    out = tmp_path / "out"
    out.mkdir()
    page, picture = out / "page.html", out / "map.html"
    one = ("--layer", "0", "--head", "1", "--model", "demo")
    for arguments in (
        ("read", lenses, "He was", *one, "--html", page),
        ("eval", lenses, store, "--layers", "0", "--rows", "64", "--model", "demo", "--heat-map", picture),
        ("export", lenses, out / "export", "--form", "z"),
        ("publish", lenses, "--repo", "me/lenses", "--store", store, "--out", out / "bundle"),
    ):
        outcome = run_alens(*arguments)
        assert outcome.code == 0, outcome
    assert "<title>Heads of secret-gpt</title>" in page.read_text()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"/home/ada" in path.read_bytes()]
