"""Caches that tests of fidelity share, derived from the demo's without running its model."""

from pathlib import Path

import pytest

from alens import open_cache
from alens.fidelity.forms import ZForm
from alens.fidelity.reencode import reencode
from alens.store.cache_reader import Cache


@pytest.fixture(scope="session")
def demo(demo_cache: Path) -> Cache:
    """The shared cache of the demo, open: 6 shards, 4 layers, k = m = 16, the exact teacher."""
    return open_cache(demo_cache)


@pytest.fixture(scope="session")
def without_teacher(demo: Cache, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The same rows of layers 1 and 3, without the exact teacher."""
    root = tmp_path_factory.mktemp("shared") / "without-teacher"
    made = reencode(demo, root, shards=demo.shards, layers=(1, 3), exact_teacher=False)
    assert made is not None
    return made


@pytest.fixture(scope="session")
def as_int8(demo: Cache, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Shards 1 and 4 of the same cache, layers 0 and 2, z as int8."""
    root = tmp_path_factory.mktemp("shared") / "int8"
    made = reencode(demo, root, shards=(1, 4), layers=(0, 2), z=ZForm("int8", None))
    assert made is not None
    return made
