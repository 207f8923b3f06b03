"""A study of one head of the demo, beside all other bases."""

from pathlib import Path

import pytest

from alens.studies.basis.result import BasisStudy

from .examples import study


@pytest.fixture(scope="session")
def basis_study(demo_lenses: Path, demo_cache: Path) -> BasisStudy:
    return study(demo_lenses, demo_cache, compare=("unembedding", "principal", "random"))
