import contextlib
import logging

import pytest
from transformers.utils import logging as libraries

from alens.model.quiet import quiet


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
