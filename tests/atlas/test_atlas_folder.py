"""The directory of an atlas is replaced as a whole, and nothing else ever is."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from alens import AtlasSettings, load_lenses, make_atlas, open_cache
from alens.job.progress import Progress

from ..folders import contents, entry_names
from ..outcomes import assert_one_line

FEW = ("--rows", 8, "--judged-rows", 16, "--roles", "none", "--head", "3.4")


def test_an_earlier_atlas_is_replaced_with_all_its_pages(
    atlas: Path, demo_lenses: Path, demo_cache: Path, run_alens: Any, tmp_path: Path
) -> None:
    out = shutil.copytree(atlas, tmp_path / "atlas")
    outcome = run_alens("atlas", demo_lenses, demo_cache, "--html", out, *FEW)
    assert outcome.code == 0 and outcome.stdout.startswith("wrote an atlas of 1 head, 8 files")
    assert entry_names(out / "heads") == ["3.4.html"] and entry_names(tmp_path) == ["atlas"]


@pytest.mark.parametrize("kind", ["a file", "a folder of others", "an atlas with notes", "no parent"])
def test_nothing_else_is_replaced(
    atlas: Path, demo_lenses: Path, demo_cache: Path, run_alens: Any, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    says = "not an atlas of alens"
    if kind == "a file":
        out.write_text("mine")
        says = "is not a directory"
    elif kind == "a folder of others":
        out.mkdir()
        (out / "index.html").write_text("<p>mine</p>")
    elif kind == "an atlas with notes":
        shutil.copytree(atlas, out)
        (out / "heads" / "notes.txt").write_text("mine")
        says = "holds heads/notes.txt, which alens did not write"
    else:
        out = tmp_path / "none" / "out"
        says = "does not exist"
    before = contents(tmp_path)
    assert_one_line(run_alens("atlas", demo_lenses, demo_cache, "--html", out, *FEW), 2, says)
    assert contents(tmp_path) == before


def test_a_run_that_is_stopped_leaves_the_earlier_atlas(
    atlas: Path, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(atlas, tmp_path / "atlas")
    before = contents(tmp_path)

    def stop(progress: Progress) -> None:
        if progress.stage == "write pages" and progress.done == 1:
            assert any(name.startswith(".atlas.") for name in entry_names(tmp_path))
            raise KeyboardInterrupt

    settings = AtlasSettings(heads="3.1,3.4", rows=8, judged_rows=16)
    with pytest.raises(KeyboardInterrupt):
        make_atlas(
            load_lenses(demo_lenses), open_cache(demo_cache), out, settings=settings, roles={}, report=stop
        )
    assert contents(tmp_path) == before


def test_what_a_killed_run_left_is_removed(
    demo_lenses: Path, demo_cache: Path, run_alens: Any, tmp_path: Path
) -> None:
    import socket

    left = tmp_path / f".atlas.{socket.gethostname()}-4194305-0123abcd.partial"
    (left / "heads").mkdir(parents=True)
    assert run_alens("atlas", demo_lenses, demo_cache, "--html", tmp_path / "atlas", *FEW).code == 0
    assert entry_names(tmp_path) == ["atlas"]
