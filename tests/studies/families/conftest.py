"""The planted model, once for all tests of a module."""

from pathlib import Path

import pytest

from .planted_heads import planted_model


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model with BOS. Shared: never write to it."""
    return planted_model(tmp_path_factory.mktemp("planted") / "model")
