"""Shared by tests of the model: a copy of the demo model's files, to be changed."""

import shutil
from pathlib import Path

import pytest

from alens import demo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    return Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
