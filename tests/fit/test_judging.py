"""Held-out losses and figures of a fit: the exact teacher is made once for all layers."""

from pathlib import Path

import pytest

from alens import FitRequest, fit_lenses
from alens.fit.settings import FitSettings
from alens.lens.record import LensRecord
from alens.machine import blocks
from alens.rows.teacher import ExactBlock, ExactTeacher

ROWS, LAYERS = 1008, (1, 2)
"""Rows of one shard, and two layers of one head each."""


@pytest.fixture
def rows_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every block of exact distributions that is made."""
    made, make = [], ExactTeacher._block

    def counted(teacher: ExactTeacher, rows: slice) -> ExactBlock:
        made.append(rows.stop - rows.start)
        return make(teacher, rows)

    monkeypatch.setattr(ExactTeacher, "_block", counted)
    return made


def fitted(cache: Path, lenses: Path, teacher: str = "compressed") -> LensRecord:
    settings = FitSettings(
        layers=LAYERS, heads=(0,), steps=2, batch_rows=512, eval_rows=ROWS, teacher=teacher
    )
    return fit_lenses(FitRequest(store=cache, lenses=lenses, settings=settings, device="cpu")).record


def test_an_evaluation_makes_the_teacher_once_for_all_layers(
    demo_cache: Path, tmp_path: Path, rows_made: list[int]
) -> None:
    fitted(demo_cache, tmp_path / "lenses")
    assert (
        sum(rows_made) == 4 * ROWS
    )  # the mean output, the start, the only evaluation after it, and the figures


def test_a_step_makes_the_teacher_once_for_all_layers(
    demo_cache: Path, tmp_path: Path, rows_made: list[int]
) -> None:
    fitted(demo_cache, tmp_path / "lenses", "exact")
    assert sum(rows_made) == 4 * ROWS + 3 * 512  # the first step judges the mean output too


def test_a_teacher_that_is_kept_in_parts_gives_the_same_lenses(
    demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_made: list[int]
) -> None:
    whole = fitted(demo_cache, tmp_path / "whole", "exact")
    before = sum(rows_made)
    monkeypatch.setattr(blocks, "LOGIT_BYTES", 4 * 256 * whole.model.d_vocab)
    parts = fitted(demo_cache, tmp_path / "parts", "exact")
    assert sum(rows_made) == 2 * before + 2 * 256  # of 512 rows of a step, half are kept
    for one, other in zip(whole.records(), parts.records(), strict=True):
        assert one["kl"] == pytest.approx(other["kl"], rel=1e-5)
