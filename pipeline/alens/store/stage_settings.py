"""Where copies of a cache's files are kept, and how much room they may take: options of the commands that read a cache."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from alens.fields import check

STAGE_VARIABLE = "ALENS_STAGE"


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Copies of what is read, on a disk of this machine."""

    stage: Path | None = None
    """Directory on a disk of this machine that keeps copies of what is read of STORE. None: $ALENS_STAGE or ~/.cache/alens for an address."""
    stage_gib: Annotated[float, Gt(0)] | None = None
    """GiB that all copies in that directory may take: those unread for longest go. None: half of the free space."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def most_bytes(self) -> int | None:
        return None if self.stage_gib is None else int(self.stage_gib * 2**30)


def usual_place() -> Path:
    """The directory for copies of caches at an address, where none is named."""
    if named := os.environ.get(STAGE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "alens"
