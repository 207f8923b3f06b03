"""The progress bars of the hub's library become lines of the log, and nothing is drawn."""

import logging

import pytest

from alens.sources import fetch_progress


def test_bytes_are_told_now_and_then(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_progress, "EVERY_S", 0.0)
    caplog.set_level(logging.INFO, "alens")
    with fetch_progress.FetchLines(desc="\x1b[2J", total=0, unit="B", unit_scale=True) as bar:
        bar.total = 548_000_000
        bar.update(120_000_000)
        bar.refresh()
    with fetch_progress.FetchLines(desc="Fetching 3 files", total=3, disable=True) as files:
        files.update(3)
    assert caplog.messages[0] == "fetching from the hub: 120 of 548 MB"
    assert set(caplog.messages) == {caplog.messages[0]}
    monkeypatch.setattr(fetch_progress, "EVERY_S", 60.0)
    caplog.clear()
    with fetch_progress.FetchLines(total=10, unit="B") as quick:
        quick.update(10)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")
