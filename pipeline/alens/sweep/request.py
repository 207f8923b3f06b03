"""The request of `alens sweep`. Imports no torch, since the command line makes options from it."""

import dataclasses
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from alens.fields import check
from alens.job.worker import Worker
from alens.remote.address import refuse
from alens.store.stage_settings import StageSettings
from alens.sweep.variants import Grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """A request to run a sweep."""

    grid: Grid
    store: Path
    """A sealed cache."""
    out: Path
    """The directory to write: a lens directory for each variant, and the table."""
    stage: StageSettings = dataclasses.field(default_factory=StageSettings)
    """Where copies of what is read of the cache are kept."""
    worker: Worker = dataclasses.field(default_factory=Worker)
    at_once: Annotated[int, Ge(1)] | None = None
    """Variants in memory together. None: what half of the free memory holds, at most 16."""
    checkpoint_every: Annotated[int, Ge(1)] = 500
    """Steps between checkpoints."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check(self)
        refuse(self.out, "lenses are not written to")
