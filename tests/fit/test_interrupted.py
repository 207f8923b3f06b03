"""A fit that is asked to stop during a step, an evaluation or its last figures drops that work, and ends with the same
bytes when it goes on."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import FitRequest, fit_lenses
from alens.errors import StoppedError
from alens.fit import trainer, training_loop
from alens.fit.engine import Engine
from alens.fit.settings import FitSettings
from alens.job.interruption import droppable, leave_out
from alens.rows.columns import RowReader

from ..lens_files import tensor_bytes
from ..stops import Stop

STEPS, EVALUATED_AT = 8, 4
Fit = Callable[..., Stop]


@pytest.fixture(autouse=True)
def evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "evaluation_steps", lambda *_: frozenset({EVALUATED_AT, STEPS}))


@pytest.fixture
def fit(planted_store: Path, tmp_path: Path) -> Fit:
    """`fit("name", stop, zero=..., SETTINGS)`: 8 steps of 128 rows into `tmp_path / "name"`."""

    def call(name: str, stop: Stop | None = None, zero: int = 0, **settings: Any) -> Stop:
        stop = stop or Stop(10**9)
        sizes = {"steps": STEPS, "batch_rows": 128, "eval_rows": 512, "start": "mean-output"}
        given = FitSettings(**{**sizes, **settings})
        request = FitRequest(
            store=planted_store, lenses=tmp_path / name, settings=given, zero=zero, device="cpu"
        )
        fit_lenses(request, report=stop.report, should_stop=stop)
        return stop

    return call


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_step_that_is_dropped_changes_nothing(
    fit: Fit, tmp_path: Path, zero: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("undisturbed", zero=zero)
    begun: list[float] = []
    plain = Engine.step

    def step(self: Engine, *given: Any, **named: Any) -> torch.Tensor:
        begun.append(given[2] if len(given) > 2 else named["lr"])
        return plain(self, *given, **named)

    monkeypatch.setattr(Engine, "step", step)
    # asked between the steps, then before each head's first pass, ...: the third question is in the midst
    with pytest.raises(StoppedError, match=f"stopped after step 3 of {STEPS} .saved"):
        fit("stopped", Stop(3, pieces=2), zero=zero)
    assert len([lr for lr in begun if lr > 0]) == 4  # the fourth was begun, and dropped
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-00000003"]
    fit("stopped", zero=zero)
    assert tensor_bytes(tmp_path / "stopped") == tensor_bytes(tmp_path / "undisturbed")


@pytest.mark.parametrize("settings", [{}, {"objective": "reverse-kl"}], ids=["forward-kl", "reverse-kl"])
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_an_evaluation_that_is_dropped_is_made_by_the_next_run(
    fit: Fit, tmp_path: Path, pieces: int, settings: dict[str, Any]
) -> None:
    fit("undisturbed", **settings)
    with pytest.raises(StoppedError, match=f"stopped after step {EVALUATED_AT} of {STEPS}"):
        fit("stopped", Stop(EVALUATED_AT, pieces), **settings)
    log = tmp_path / "stopped" / "log.jsonl"
    assert not log.exists()
    fit("stopped", **settings)
    assert len(log.read_text().splitlines()) == 2
    assert tensor_bytes(tmp_path / "stopped") == tensor_bytes(tmp_path / "undisturbed")


def test_the_last_figures_are_dropped_too_and_no_step_is_taken_again(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("undisturbed")
    stop = Stop(10**9)
    plain = training_loop.put_lenses

    def put_lenses(trained: trainer.Trainer, *read: Any) -> Any:
        stop.left = 0
        return plain(trained, *read)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "put_lenses", put_lenses)
        stop.pieces = 2
        with pytest.raises(StoppedError, match=f"stopped after step {STEPS} of {STEPS} .saved"):
            fit("stopped", stop)
    assert not (tmp_path / "stopped" / "lens.json").exists()
    again = fit("stopped")
    assert again.left == 10**9
    assert tensor_bytes(tmp_path / "stopped") == tensor_bytes(tmp_path / "undisturbed")


def test_no_data_is_waited_for(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system hangs for longer than the fit may take to stop."""
    fit("undisturbed")
    plain, stop, hung = RowReader.shard, Stop(4), []

    def shard(self: RowReader, number: int, *more: Any, **given: Any) -> Any:
        if stop.left <= 0:
            hung.append(number)
            time.sleep(20)
        return plain(self, number, *more, **given)

    with monkeypatch.context() as patch:
        patch.setattr(RowReader, "shard", shard)
        patch.setattr(trainer, "evaluation_steps", lambda *_: frozenset({STEPS}))
        stop.left = 3
        since = time.monotonic()
        with pytest.raises(StoppedError):
            fit("stopped", stop)
    assert time.monotonic() - since < 15
    fit("stopped")
    assert tensor_bytes(tmp_path / "stopped") == tensor_bytes(tmp_path / "undisturbed")


def test_pieces_are_left_out_inside_only() -> None:
    def yes() -> bool:
        return True

    assert not leave_out()
    with droppable(yes) as work:
        assert not work.left_out
        assert leave_out() and work.left_out
        with droppable(lambda: False):
            assert not leave_out()
        assert leave_out()
    assert not leave_out()


def test_once_a_piece_was_left_out_all_are() -> None:
    answers: Iterator[bool] = iter([False, True, False])
    with droppable(lambda: next(answers)) as work:
        assert [leave_out() for _ in range(4)] == [False, True, True, True]
    assert work.left_out
