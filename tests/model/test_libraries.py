"""Model libraries are imported without garbage collections, and kept quiet; afterwards all is as it was."""

import contextlib
import gc
import json
import logging
import subprocess
import sys

import pytest
from transformers.utils import logging as libraries

from alens.model.libraries import importing, quiet


@pytest.fixture(params=[True, False])
def works(request: pytest.FixtureRequest) -> bool:
    """Whether the collector is enabled before the block."""
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
source = models.find("demo")
models.load(source, dtype="float32", device="cpu")
after = sum(entry["collections"] for entry in gc.get_stats())
print(json.dumps([after - before, gc.isenabled()]))
"""


@pytest.mark.parametrize(("level", "bars"), [(logging.INFO, True), (logging.WARNING, False)])
def test_quiet_libraries_are_afterwards_as_they_were(level: int, bars: bool) -> None:
    deepspeed = logging.getLogger("DeepSpeed")

    def state() -> tuple[int, int, bool]:
        return deepspeed.level, libraries.get_verbosity(), libraries.is_progress_bar_enabled()

    def put(level: int, verbosity: int, bars: bool) -> None:
        deepspeed.setLevel(level)
        libraries.set_verbosity(verbosity)
        (libraries.enable_progress_bar if bars else libraries.disable_progress_bar)()

    before = state()
    try:
        put(level, level, bars)
        with contextlib.suppress(KeyError), quiet():
            assert state() == (logging.ERROR, logging.ERROR, False)
            raise KeyError
        assert state() == (level, level, bars)
    finally:
        put(*before)
