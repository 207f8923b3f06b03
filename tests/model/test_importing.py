"""Python's garbage collector rests while large libraries are imported, and only then."""

import gc
import json
import subprocess
import sys

import pytest

from alens.model.importing import importing


@pytest.fixture(params=[True, False])
def works(request: pytest.FixtureRequest) -> bool:
    """Whether the collector works before."""
    return bool(request.param)


def test_the_collector_is_as_it_was(works: bool) -> None:
    (gc.enable if works else gc.disable)()
    try:
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled() == works
        with pytest.raises(ImportError), importing():
            raise ImportError
        assert gc.isenabled() == works
    finally:
        gc.enable()


def test_the_model_libraries_are_imported_without_collections() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS], capture_output=True, text=True, check=True, timeout=400
    )
    during, after = json.loads(done.stdout.splitlines()[-1])
    assert during < 250  # 850 where the collector works
    assert after


LOADS = """
import gc, json, torch
from alens.model import models
before = sum(entry["collections"] for entry in gc.get_stats())
found = models.find("demo")
models.load(found, dtype="float32", device="cpu")
after = sum(entry["collections"] for entry in gc.get_stats())
print(json.dumps([after - before, gc.isenabled()]))
"""
