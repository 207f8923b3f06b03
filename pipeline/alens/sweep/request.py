"""What `alens sweep` is asked for. Imports no torch: the command line makes its options from it."""

import dataclasses
from pathlib import Path

from alens.job.worker import Worker
from alens.sweep.variants import Grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """Everything `alens sweep` was asked for."""

    grid: Grid
    store: Path
    """A sealed cache."""
    out: Path
    """The directory to write: a lens directory a variant, and the table."""
    worker: Worker = dataclasses.field(default_factory=Worker)
    at_once: int | None = None
    """Variants in memory at once; None for what half of the free memory holds."""
    device: str = "auto"
    checkpoint_every: int = 500
    """Steps between checkpoints."""
