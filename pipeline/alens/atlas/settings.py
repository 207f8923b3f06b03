"""What an atlas can be asked for. It loads no torch, so that the options of `alens atlas` are made from it."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alens.fields import check
from alens.heads import HeadNames


@dataclass(frozen=True, kw_only=True)
class AtlasSettings:
    """Which heads an atlas has, and how many rows it is made from."""

    layers: tuple[int, ...] | None = None
    """Layers to show. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to show: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    rows: Annotated[int, Ge(1)] = 4096
    """At most this many rows of the cache are read with each head, as many from each of its shards; rows that lenses were
    trained on are left out where they are known."""
    judged_rows: Annotated[int, Ge(1)] = 512
    """At most this many held-out rows are judged for figures, as `alens eval --rows` does."""
    top: Annotated[int, Ge(1)] = 16
    """Tokens in the lists of a head."""

    def __post_init__(self) -> None:
        check(self)
