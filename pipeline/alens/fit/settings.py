"""What a fit can be asked for. Everything here determines the lenses; how many processes share the work,
and on which device, does not."""

import dataclasses
import math
from typing import Any

from alens.errors import RequestError

DESIGNS = ("linear",)
OBJECTIVES = ("forward-kl",)
TEACHERS = ("compressed", "exact")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The settings of a fit, as they stand in `fit.json` and `lens.json`."""

    layers: tuple[int, ...] | None = None
    """Layers to fit; None for all that are cached."""
    heads: tuple[int, ...] | None = None
    """Heads to fit, the same in each layer; None for all."""
    lens: str = "linear"
    """The design of the lens."""
    objective: str = "forward-kl"
    """The loss."""
    teacher: str = "compressed"
    """`compressed` (top k and tail samples) or `exact` (needs a cache with the exact teacher)."""
    steps: int | None = None
    """Steps to take; None to go by epochs."""
    epochs: float = 2.0
    """Passes over the training rows, when steps are not given."""
    batch_rows: int = 1024
    """Rows a step, over all processes."""
    lr: float = 0.03
    """Peak learning rate, in whitened coordinates; it falls linearly to zero."""
    min_position: int = 1
    """Rows at earlier positions of their sequence are skipped: position 0 sees only itself."""
    eval_rows: int = 16_384
    """Rows for held-out figures, from whole shards that are never trained on."""
    seed: int = 0
    """Of the order of shards."""

    def __post_init__(self) -> None:
        for name, choices in (("lens", DESIGNS), ("objective", OBJECTIVES), ("teacher", TEACHERS)):
            if getattr(self, name) not in choices:
                raise RequestError(
                    f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(choices)}"
                )
        for name in ("batch_rows", "eval_rows"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.steps is not None and self.steps < 1:
            raise RequestError(f"steps is {self.steps}: it must be at least 1")
        for name in ("epochs", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise RequestError(f"{name} is {getattr(self, name)}: it must be a number above 0")
        if self.min_position < 0:
            raise RequestError(f"min_position is {self.min_position}: it must be 0 or more")
        if not 0 <= self.seed < 2**63:
            raise RequestError(f"seed is {self.seed}: it must be in 0 .. 2^63 - 1")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
