"""Lenses of the demo, fitted once."""

import os
from pathlib import Path
from unittest import mock

import pytest

from alens import FitRequest, fit_lenses
from alens.fit.settings import FitSettings


@pytest.fixture(scope="session")
def demo_lenses(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads 1 and 4 of layers 0 and 3. Shared: never write to it, copy it."""
    lenses = tmp_path_factory.mktemp("shared") / "demo-lenses"
    settings = FitSettings(layers=(0, 3), heads=(1, 4), batch_rows=512, eval_rows=1024)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=demo_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses
