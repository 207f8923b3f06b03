"""Checkpoints: whole or passed over, two kept, nothing left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alens.errors import DamageError, RequestError, RunError
from alens.fit import checkpoints

from .. import documents
from ..damage import cut, flip
from ..folders import entry_names


def state(step: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((20, 30), float(step)), "weight/exp_avg": torch.ones(3) * step}


def notes(step: int) -> dict[str, Any]:
    return {"frozen": [[0, 1, step]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints after 10 and 20 steps."""
    for step in (10, 20):
        checkpoints.save(tmp_path / "checkpoints", step, state(step), notes(step))
    return tmp_path / "checkpoints"


def test_the_newest_comes_back_as_it_was_saved(folder: Path) -> None:
    checkpoint = checkpoints.newest(folder)
    assert checkpoint is not None and checkpoint.step == 20
    assert checkpoint.state.keys() == state(20).keys() and checkpoint.notes == notes(20)
    assert all(torch.equal(checkpoint.state[name], value) for name, value in state(20).items())


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "checkpoints") is None


def test_the_two_newest_are_kept_and_nothing_else(folder: Path) -> None:
    for step in (30, 9_999_999, 10_000_000):
        checkpoints.save(folder, step, state(step), notes(step))
    assert entry_names(folder) == ["step-09999999", "step-10000000"]


def test_a_checkpoint_holds_no_pickle(folder: Path) -> None:
    assert entry_names(folder / "step-00000020") == ["checkpoint.json", "state.safetensors"]


HARMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "flip": ("state.safetensors", lambda file: flip(file, -5, 16)),
    "truncate": ("state.safetensors", cut),
    "lose_state": ("state.safetensors", Path.unlink),
    "lose_description": ("checkpoint.json", Path.unlink),
    "cut_description": ("checkpoint.json", lambda file: file.write_text('{"step": 2')),
    "empty_description": ("checkpoint.json", lambda file: file.write_text("[]")),
    "binary_description": ("checkpoint.json", lambda file: file.write_bytes(b"\xff\xfe\x00")),
}


@pytest.mark.parametrize(("name", "harm"), HARMS.values(), ids=HARMS)
def test_a_damaged_newest_is_named_and_passed_over(
    folder: Path, name: str, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    harm(folder / "step-00000020" / name)
    checkpoint = checkpoints.newest(folder)
    assert checkpoint is not None and checkpoint.step == 10
    assert "step-00000020 is damaged" in caplog.text


def test_a_fit_starts_anew_when_all_are_damaged(folder: Path) -> None:
    for path in list(folder.iterdir()):
        flip(path / "state.safetensors", -5)
    assert checkpoints.newest(folder) is None


def test_saving_a_step_again_replaces_a_damaged_one(folder: Path) -> None:
    flip(folder / "step-00000020" / "state.safetensors", -5)
    checkpoints.save(folder, 20, state(20), notes(20))
    checkpoint = checkpoints.newest(folder)
    assert checkpoint is not None and checkpoint.step == 20


def test_what_a_killed_save_left_is_not_read_and_goes_with_the_next(folder: Path) -> None:
    leftover = folder / ".step-00000030.4711-abcd1234.partial"
    shutil.copytree(folder / "step-00000020", leftover)
    checkpoint = checkpoints.newest(folder)
    assert checkpoint is not None and checkpoint.step == 20
    checkpoints.save(folder, 30, state(30), notes(30))
    assert entry_names(folder) == ["step-00000020", "step-00000030"]


def test_a_full_disk_is_one_line_and_leaves_the_older_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", refuse)
    with pytest.raises(RunError, match="No space left on device"):
        checkpoints.save(folder, 30, state(30), notes(30))
    assert entry_names(folder) == ["step-00000010", "step-00000020"]


def test_the_description_says_which_step_it_is(folder: Path) -> None:
    assert json.loads((folder / "step-00000020" / "checkpoint.json").read_text())["step"] == 20


# Links: the checkpoints of another fit may lie behind one


def test_nothing_is_read_saved_or_dropped_behind_a_link(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "checkpoints"
    mine.parent.mkdir()
    mine.symlink_to(folder)
    before = entry_names(folder)
    for use in (lambda: checkpoints.newest(mine), lambda: checkpoints.save(mine, 30, state(30), notes(30))):
        with pytest.raises(
            RequestError, match=r"/mine/checkpoints is a link to .*: the checkpoints of another fit"
        ):
            use()
    checkpoints.drop_all(mine)
    assert entry_names(folder) == before and mine.is_symlink()


def test_of_a_linked_checkpoint_the_link_goes(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("step-00000001", ".step-00000002.1-ab.partial"):
        shutil.copytree(folder / "step-00000020", elsewhere / name)
        (folder / name).symlink_to(elsewhere / name)
    checkpoints.save(folder, 30, state(30), notes(30))
    assert entry_names(folder) == ["step-00000020", "step-00000030"]
    assert all(entry_names(path) == ["checkpoint.json", "state.safetensors"] for path in elsewhere.iterdir())


def test_dropping_all_leaves_what_is_no_checkpoint(folder: Path) -> None:
    (folder / "step-notes.txt").write_text("mine")
    checkpoints.drop_all(folder)
    assert entry_names(folder) == ["step-notes.txt"]
    (folder / "step-notes.txt").unlink()
    checkpoints.save(folder, 30, state(30), notes(30))
    checkpoints.drop_all(folder)
    assert not folder.exists()


@pytest.mark.parametrize("changes", [{"step": "2"}, {"step": -1}, {"notes": 5}, {"surprise": 1}])
def test_a_description_that_cannot_be_is_passed_over(folder: Path, changes: dict[str, Any]) -> None:
    newest = sorted(folder.iterdir())[-1]
    documents.edit(newest / "checkpoint.json", lambda body: body.update(changes))
    checkpoint = checkpoints.newest(folder)
    assert checkpoint is not None and f"step-{checkpoint.step:08d}" != newest.name


def test_a_state_of_another_fit_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(
            DamageError, match=r"holds a checkpoint that is not of this fit \(KeyError: 'weight'\)"
        ),
        checkpoints.taken_up(tmp_path),
    ):
        _ = {}["weight"]
    with pytest.raises(RuntimeError, match="out of memory"), checkpoints.taken_up(tmp_path):
        raise RuntimeError("CUDA out of memory")
