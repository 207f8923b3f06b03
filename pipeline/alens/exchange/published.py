"""The lenses of another program, as every reader of published files gives them.

`alens_export`, `tuned_lens`, `jacobian_lens` and `attention_lens` are such readers: modules with the two functions of `Reader`.
Shapes: H heads, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from alens.exchange.request import ImportRequest
from alens.heads import Heads
from alens.lens.maps import LensMaps
from alens.model.models import LoadedModel

NO_CACHE: Mapping[str, Any] = {
    "plan": None,
    "fingerprint": None,
    "train_shards": [],
    "held_out_shards": [],
}
"""The `cache` of lenses that were not fitted from a cache, or whose publication does not name it."""


@dataclass(frozen=True, kw_only=True)
class PublishedLenses:
    """Lenses and what their publication says of them; None where it says nothing."""

    program: str
    """`attention-lens`, `jacobian-lens`, `tuned-lens` or `alens`."""
    site: str
    form: str
    heads: Heads
    maps: Callable[[int], LensMaps]
    """Layer -> its maps on the values of the site, float32."""
    notes: dict[str, Any]
    """What the publication says of itself, and what was done to read it."""
    objective: str | None = None
    cache: Mapping[str, Any] = field(default_factory=lambda: dict(NO_CACHE))
    min_position: int = 1
    """The first position at which the lenses are judged."""
    held_out: Mapping[str, Any] = field(default_factory=dict)
    """The figures of each head, as in `LensRecord.held_out`, with the mark of lenses that say nothing."""
    bos: int | None = None
    """The token that prompts begin with, before their text."""
    mean_output_kl: float | None = None
    """On the rows of these figures, nats."""
    log_mean_output_V: torch.Tensor | None = None
    mean_z: Callable[[int], torch.Tensor | None] = lambda layer: None
    """Layer -> E[z] of its heads over the cache, (H, E); None where it is not known."""


class Reader(Protocol):
    """Reads what one program publishes."""

    def recognises(self, source: Path) -> bool:
        """Whether `source` looks like something that the program wrote."""

    def read(self, request: ImportRequest, model: LoadedModel) -> PublishedLenses:
        """The lenses of `request.source`, checked against `model`. Raises `RequestError` or `DamageError`."""
