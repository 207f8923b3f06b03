"""The marker of a fit that stopped on request: there after a stop, gone once a fit starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alens.errors import RunError, StoppedError
from alens.fit import checkpoints
from alens.fit.distributed import Processes
from alens.lens.directory import LensDirectory
from alens.lens.record import LensRecord

Fit = Callable[..., LensRecord]

STEPS = 6


def marker(lenses: Path) -> dict[str, int] | None:
    file = lenses / "stopped.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_it_says_where_the_fit_stopped_and_can_be_cleared(tmp_path: Path) -> None:
    LensDirectory(tmp_path).mark_stopped(3, 20)
    assert marker(tmp_path) == {"step": 3, "steps": 20}
    LensDirectory(tmp_path).mark_stopped(4, 20)
    assert marker(tmp_path) == {"step": 4, "steps": 20}
    LensDirectory(tmp_path).clear_stopped()
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_none_there_is_nothing_to_clear(tmp_path: Path) -> None:
    LensDirectory(tmp_path).clear_stopped()
    LensDirectory(tmp_path / "no directory yet").clear_stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alens.store.durable.put_stream", full)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
        LensDirectory(tmp_path).mark_stopped(3, 20)


@pytest.mark.parametrize("stop", [0, 4])
def test_a_fit_that_stops_leaves_it_also_before_the_first_step(fit: Fit, tmp_path: Path, stop: int) -> None:
    with pytest.raises(StoppedError):
        fit("lenses", steps=STEPS, stop=stop)
    assert marker(tmp_path / "lenses") == {"step": stop, "steps": STEPS}


def test_a_fit_that_goes_on_clears_it_and_a_finished_one_has_none(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        fit("lenses", steps=STEPS, stop=2)
    fit("lenses", steps=STEPS)
    assert marker(tmp_path / "lenses") is None


def test_a_fit_that_fails_after_an_earlier_stop_has_none(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):
        fit("lenses", steps=STEPS, stop=2)
    with monkeypatch.context() as patch:
        patch.setattr("alens.fit.engine.Engine.step", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit("lenses", steps=STEPS)
    assert marker(tmp_path / "lenses") is None


def test_it_comes_after_the_checkpoint_and_before_any_process_may_end(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        return lambda *_: happened.append(name)

    monkeypatch.setattr(checkpoints, "save", noting("save"))
    monkeypatch.setattr(LensDirectory, "mark_stopped", noting("put"))
    plain = Processes.first_does

    def first_does(self: Processes, work: Callable[[], None]) -> None:
        plain(self, work)
        happened.append("all wait")

    monkeypatch.setattr(Processes, "first_does", first_does)
    with pytest.raises(StoppedError):
        fit("lenses", steps=STEPS, stop=2)
    assert happened[-4:] == ["save", "all wait", "put", "all wait"]
