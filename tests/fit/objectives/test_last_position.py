"""Forward KL on last positions: the rows that a fit sees."""

from pathlib import Path

import pytest

from alens import FitRequest, fit_lenses
from alens.fit.settings import FitSettings
from alens.rows.columns import RowReader


def test_a_fit_reads_the_last_position_of_each_sequence_and_no_other(
    planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: set[int] = set()
    read = RowReader.shard

    def watched(self: RowReader, shard: int, *more: str, **stretch: int) -> object:
        columns = read(self, shard, *more, "rows/position", **stretch)
        rows.update(columns.by_name["rows/position"].tolist())
        return columns

    monkeypatch.setattr(RowReader, "shard", watched)
    settings = FitSettings(objective="last-position", steps=4, batch_rows=64, eval_rows=64)
    request = FitRequest(store=planted_store, lenses=tmp_path / "l", settings=settings, device="cpu")
    record = fit_lenses(request).record
    assert rows == {7}
    assert record.objective == "last-position" and record.fit["min_position"] == 7
