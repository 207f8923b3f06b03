"""What a fit can be asked for.

`FitSettings` determine the lenses. The rest of a `FitRequest` does not: where files are, how many processes share the
work, on which device.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.fit.convergence import TOLERANCE
from alens.store.schema import ATTN_Z

TEACHERS = ("compressed", "exact")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The settings of a fit, as they stand in `fit.json` and `lens.json`."""

    layers: tuple[int, ...] | None = None
    """Layers to fit; None for all that are cached."""
    heads: tuple[int, ...] | None = None
    """Heads to fit, the same in each layer; None for all."""
    site: str = ATTN_Z
    """What the lenses read: z of each head, or `resid_post` or `mlp_out` where the cache has them."""
    lens: str = "linear"
    """The design of the lens: a name, or `module:Class`."""
    lens_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the design, by name."""
    objective: str = "forward-kl"
    """The loss: a name, or `module:Class`."""
    objective_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the objective, by name."""
    teacher: str | None = None
    """`compressed` (top k and tail samples) or `exact` (needs a cache with the exact teacher); None for what the
    objective takes first."""
    top_k: int | None = None
    """Use the first so many of the cached targets, as if no more had been cached; None for all."""
    tail_samples: int | None = None
    """Use so many tail samples, drawn for that top k; None for all."""
    rows: int | None = None
    """Train on so many rows at most, in whole shards; None for all that are not held out."""
    steps: int | None = None
    """Steps to take at most; None to go by epochs."""
    epochs: float = 2.0
    """Passes over the training rows at most, when steps are not given."""
    batch_rows: int = 1024
    """Rows a step, over all processes."""
    lr: float | None = None
    """Learning rate of the first steps, in the design's own coordinates; it falls with the root of the step. None for
    the design's own."""
    tolerance: float = TOLERANCE
    """A lens has converged when it has no more than this share of its gain over the mean output left; 0 to take all
    steps."""
    min_position: int = 1
    """Rows at earlier positions of their sequence are skipped: position 0 sees only itself."""
    eval_rows: int = 16_384
    """Rows for held-out figures, from whole shards that are never trained on."""
    seed: int = 0
    """Of the order of shards, and of what a design draws."""

    def __post_init__(self) -> None:
        if self.teacher is not None and self.teacher not in TEACHERS:
            raise RequestError(f"teacher is {self.teacher!r}: it must be one of {', '.join(TEACHERS)}")
        for name in ("batch_rows", "eval_rows"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("steps", "rows", "top_k", "tail_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("epochs", "lr"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise RequestError(f"{name} is {getattr(self, name)}: it must be a number above 0")
        if not 0 <= self.tolerance < 1:
            raise RequestError(f"tolerance is {self.tolerance}: it must be 0 or more, and less than 1")
        if self.min_position < 0:
            raise RequestError(f"min_position is {self.min_position}: it must be 0 or more")
        if not 0 <= self.seed < 2**63:
            raise RequestError(f"seed is {self.seed}: it must be in 0 .. 2^63 - 1")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Everything `alens fit` was asked for."""

    store: Path
    """A cache."""
    lenses: Path
    """The directory to write."""
    settings: FitSettings = dataclasses.field(default_factory=FitSettings)
    zero: int | None = None
    """ZeRO stage: what DeepSpeed partitions over processes; None for what `deepspeed` says, else 0."""
    deepspeed: Path | None = None
    """A DeepSpeed configuration (JSON): partitioning, offload, bfloat16, monitors."""
    device: str = "auto"
    checkpoint_every: int = 500
    """Steps between checkpoints."""
