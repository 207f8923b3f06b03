"""What a reader of a published program gives: its lenses as maps of this package, a layer at a time.

In: nothing. Out: `PublishedLenses`, which `importing` writes as a lens directory. What the publication does not say is None.
Shapes: H heads, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from alens.lens.maps import LensMaps

NO_CACHE: Mapping[str, Any] = {
    "plan": None,
    "fingerprint": None,
    "train_shards": [],
    "held_out_shards": [],
}
"""Of lenses that were not fitted from a cache, or from one that nobody names."""


@dataclass(frozen=True, kw_only=True)
class PublishedLenses:
    """Lenses of another program."""

    program: str
    """`attention-lens`, `tuned-lens` or `alens`."""
    site: str
    form: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    maps: Callable[[int], LensMaps]
    """Of a layer, on the values of the site; float32."""
    notes: dict[str, Any]
    """What the publication says of itself, and what was done to read it."""
    objective: str | None = None
    cache: Mapping[str, Any] = field(default_factory=lambda: dict(NO_CACHE))
    min_position: int = 1
    """The first position that the lenses are judged at."""
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """Figures of each head as `LensRecord.held_out` has them, with the mark of lenses that say nothing."""
    mean_output_kl: float | None = None
    """On the rows of these figures, nats."""
    log_mean_output_V: torch.Tensor | None = None
