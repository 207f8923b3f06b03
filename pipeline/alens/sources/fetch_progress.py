"""The progress of a download from the hub, as a line of the log now and then.

In: the updates that the hub's library gives to a progress bar. Out: `fetching from the hub: 120 of 548 MB`. The
library's own bars would draw over those of alens, with control characters and file names that a stranger chose.
"""

import io
import logging
import time
from typing import Any

from tqdm import tqdm  # the hub's library depends on it

log = logging.getLogger("alens")

EVERY_S = 10.0


class FetchLines(tqdm):  # type: ignore[misc]
    """A `tqdm_class` for `snapshot_download`; a bar that counts files logs nothing."""

    _said_at = 0.0

    def __init__(self, *arguments: Any, **given: Any) -> None:
        self._said_at = time.monotonic()
        super().__init__(*arguments, **{**given, "file": io.StringIO(), "disable": False})

    def display(self, *_: Any, **__: Any) -> None:
        now = time.monotonic()
        if self.unit == "B" and self.n and now - self._said_at >= EVERY_S:
            self._said_at = now
            total = f" of {self.total / 1e6:,.0f}" if self.total else ""
            log.info(f"fetching from the hub: {self.n / 1e6:,.0f}{total} MB")
