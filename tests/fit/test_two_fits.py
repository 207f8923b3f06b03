"""Two fits of one directory: the second is refused and takes nothing from the first; a dead fit is followed."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from alens import FitRequest, fit_lenses
from alens.errors import RequestError, RunError, StoppedError
from alens.fit.settings import FitSettings
from alens.job.progress import Progress, Report, silent
from alens.store import one_writer

from ..folders import contents
from ..stops import Stop

LIMIT_S = 400
STEPS = 400


def fit(store: Path, lenses: Path, stop: int = 10**9, report: Report = silent) -> None:
    asked = Stop(stop)

    def both(progress: Progress) -> None:
        asked.report(progress)
        report(progress)

    settings = FitSettings(steps=STEPS, batch_rows=128, eval_rows=512)
    request = FitRequest(store=store, lenses=lenses, settings=settings, device="cpu", checkpoint_every=20)
    fit_lenses(request, should_stop=asked, report=both)


def claim(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / one_writer.CLAIM).read_text())
    return body


def test_the_second_is_refused_and_the_first_keeps_its_checkpoints(
    planted_store: Path, tmp_path: Path, held_alens: Any
) -> None:
    lenses = tmp_path / "lenses"
    sizes = ["--steps", STEPS, "--batch-rows", 128, "--eval-rows", 512, "--checkpoint-every", 20]
    first = held_alens(lenses, "checkpoints/step-*", "fit", planted_store, lenses, *sizes, "--device", "cpu")
    before, began = contents(lenses), time.monotonic()
    with pytest.raises(RequestError) as caught:
        fit(planted_store, lenses)
    assert time.monotonic() - began < 30
    assert str(caught.value).startswith(
        f"{lenses} is in use by process {first.pid} on {socket.gethostname()}: "
    )
    assert contents(lenses) == before
    first.send_signal(signal.SIGTERM)
    _, stderr = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 75, stderr
    assert not (lenses / one_writer.CLAIM).exists()
    fit(planted_store, lenses)
    assert (lenses / "lens.json").exists()


def test_a_job_that_was_killed_on_another_host_is_gone_on_with(
    planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(one_writer, "WAIT_S", 1.0)
    lenses = tmp_path / "lenses"
    with pytest.raises(StoppedError):
        fit(planted_store, lenses, stop=30)
    body = {"host": "elsewhere", "pid": 7, "token": "theirs"}
    (lenses / one_writer.CLAIM).write_text(json.dumps(body))
    with caplog.at_level("INFO", "alens"):
        fit(planted_store, lenses)
    assert "going on in the place of process 7 on elsewhere, which is dead" in caplog.text
    assert "going on after step 30 of 400" in caplog.text
    assert not (lenses / one_writer.CLAIM).exists()


def test_a_fit_that_lost_its_directory_while_suspended_writes_nothing_more(
    planted_store: Path, tmp_path: Path
) -> None:
    lenses, body = tmp_path / "lenses", {"host": "elsewhere", "pid": 7, "token": "theirs"}
    seen: dict[str, bytes] = {}

    def lose(progress: Progress) -> None:
        if progress.stage == "fit" and progress.done == 45:
            assert claim(lenses)["pid"] == os.getpid()
            (lenses / one_writer.CLAIM).write_text(json.dumps(body))
            seen.update(contents(lenses))

    with pytest.raises(
        RunError, match=r"lenses does not belong to this process any more: .* process 7 on elsewhere"
    ):
        fit(planted_store, lenses, report=lose)
    assert contents(lenses) == seen | {"log.jsonl": contents(lenses)["log.jsonl"]}
    assert claim(lenses) == body


def test_lenses_that_another_finished_meanwhile_are_left_as_they_are(
    planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends while the second is checking whether it lives."""
    lenses = tmp_path / "lenses"
    fit(planted_store, lenses)
    record, expected = (lenses / "lens.json"), contents(lenses)
    content = record.read_bytes()
    record.unlink()
    body = {"host": "elsewhere", "pid": 7, "token": "theirs"}
    (lenses / one_writer.CLAIM).write_text(json.dumps(body))
    sleep = time.sleep

    def end_well(seconds: float) -> None:
        if not record.exists():
            record.write_bytes(content)
            (lenses / one_writer.CLAIM).unlink()
        sleep(seconds)

    monkeypatch.setattr(one_writer.time, "sleep", end_well)
    fit(planted_store, lenses)
    assert contents(lenses) == expected


def test_told_to_stop_while_it_looks_it_leaves_the_marker_that_job_scripts_go_by(
    planted_store: Path, tmp_path: Path
) -> None:
    lenses = tmp_path / "lenses"
    with pytest.raises(StoppedError):
        fit(planted_store, lenses, stop=30)
    (lenses / "stopped.json").unlink()
    (lenses / one_writer.CLAIM).write_text(json.dumps({"host": "elsewhere", "pid": 7, "token": "theirs"}))
    with pytest.raises(
        StoppedError, match="stopped while looking whether process 7 on elsewhere still works in"
    ):
        fit(planted_store, lenses, stop=0)
    assert json.loads((lenses / "stopped.json").read_text()) == {"step": 30, "steps": STEPS}
