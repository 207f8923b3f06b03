"""A fit never holds rows x vocabulary, whatever the teacher: memory stays bounded at V = 50,257."""

from pathlib import Path
from typing import Any

import pytest

from alens import FitRequest, fit_lenses
from alens.fit.settings import FitSettings
from alens.machine import blocks

V, BATCH_ROWS, BLOCK_ROWS = 4096, 1024, 64


@pytest.mark.parametrize("teacher", ["compressed", "exact"])
def test_no_tensor_of_a_fit_has_a_batch_of_distributions(
    demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: Any, teacher: str
) -> None:
    for bound in ("CPU_ROWS", "CPU_TILE_ROWS", "CPU_TEACHER_ROWS"):
        monkeypatch.setattr(blocks, bound, BLOCK_ROWS)
    monkeypatch.setattr(blocks, "CPU_TILE_COLUMNS", V)
    settings = FitSettings(
        layers=(1,), heads=(2,), teacher=teacher, steps=2, batch_rows=BATCH_ROWS, eval_rows=1024
    )
    with largest:
        fit_lenses(FitRequest(store=demo_cache, lenses=tmp_path / "l", settings=settings, device="cpu"))
    assert BLOCK_ROWS * V <= largest.elements <= BATCH_ROWS * V // 4
