"""What a newcomer types: a prompt that begins with a dash, a directory that is gone, a number that is cut."""

import os
from pathlib import Path
from typing import Any

import pytest

from alens.errors import RunError
from alens.exchange import folder

SETTINGS = ("--seq-len", 16, "--rows-per-shard", 64, "--layers", 0, "--top-k", 4, "--tail-samples", 4)


def test_a_prompt_that_begins_with_a_dash(run_alens: Any, demo_lenses: Path) -> None:
    code, _, err = run_alens("read", demo_lenses, "-5 degrees")
    assert code == 2
    assert err == (
        "alens: No such option '-5'; before a prompt or name that begins with -, put -- (see: alens read --help)\n"
    )
    assert run_alens("read", demo_lenses, "--", "-5 degrees").code == 0


def test_a_working_directory_that_is_gone(
    run_alens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        code, out, err = run_alens("cache", "demo", "demo", "store")
    finally:
        os.chdir(tmp_path)
    assert (code, out) == (2, "")
    assert err == "alens: the working directory was deleted: cd to one that is there, then run it again\n"


def test_rows_that_are_cut_to_whole_shards_are_said(run_alens: Any, tmp_path: Path) -> None:
    cut = run_alens("cache", "demo", "demo", tmp_path / "store", *SETTINGS, "--max-rows", 200)
    assert "of the 200 rows of --max-rows, 192: shards are whole, of 64 rows\n" in cut.stdout
    again = run_alens("plan", "demo", "demo", tmp_path / "store", *SETTINGS, "--max-rows", 200)
    assert "192 of the 200 rows of --max-rows: shards are whole" in again.stdout
    assert "0 sequences left out" not in cut.stdout + again.stdout
    whole = run_alens("cache", "demo", "demo", tmp_path / "other", *SETTINGS, "--max-rows", 192)
    assert "--max-rows" not in whole.stdout


def test_a_lack_of_room_is_said_in_numbers_that_differ(tmp_path: Path) -> None:
    """It was `0.01 GB free, and it will take 0.01 GB`."""
    with pytest.raises(RunError) as caught:
        folder.check_room(tmp_path / "out", 10**18)
    words = str(caught.value)
    assert (
        f"{tmp_path / 'out'} will take 1,000,000,000,000,000,000 beside 16,777,216 that are kept free: make"
        in words
    )
    assert f"{tmp_path} has " in words and " bytes free, and " in words and "GB" not in words


def test_directories_that_changed_places_are_said(
    run_alens: Any, demo_cache: Path, demo_lenses: Path, tmp_path: Path
) -> None:
    lenses = f"{demo_lenses} is not a cache, it holds lenses: give a directory that `alens cache` wrote"
    cache = f"{demo_cache} holds no lenses (it is a cache): give a directory that `alens fit` finished"
    for arguments, says in (
        (("eval", demo_cache, demo_lenses), cache),
        (("fit", demo_lenses, tmp_path / "new"), lenses),
        (("verify", demo_lenses), lenses),
        (("read", demo_cache, "The king"), cache),
    ):
        code, _, err = run_alens(*arguments)
        assert code == 2 and says in err.splitlines()[-1]


def test_an_unfinished_fit_is_said(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "fit.json").touch()
    code, _, err = run_alens("read", tmp_path, "The king")
    assert code == 2
    assert "holds no lenses (their fit is not finished: run `alens fit` again to go on)" in err
