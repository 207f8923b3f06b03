"""What watching shows while a command works, and what it leaves behind: nothing."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from alens.cli.watch import watching
from alens.job.progress import Progress

LOGGER = logging.getLogger("alens")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def level() -> Iterator[int]:
    """A level that somebody has set."""
    before = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    yield logging.CRITICAL
    LOGGER.setLevel(before)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_the_logger_is_left_as_it_was(
    rank: str, fails: bool, stream: type[io.StringIO], level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("RANK", rank)
    handlers = list(LOGGER.handlers)
    try:
        with watching() as report:
            report(Progress(stage="fit", done=1, total=1, unit="rows"))
            LOGGER.info("a line")
            LOGGER.setLevel(logging.WARNING)  # `alens fidelity` does, for its probes
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert (LOGGER.level, LOGGER.handlers) == (level, handlers)
    LOGGER.info("another line")
    assert ("a line" in stderr.getvalue(), "another line" in stderr.getvalue()) == (rank == "0", False)
