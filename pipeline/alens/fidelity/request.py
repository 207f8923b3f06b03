"""The request of `alens fidelity`: what to measure, and how much of the cache to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from alens.errors import RequestError
from alens.fields import check
from alens.heads import HeadNames


@dataclass(frozen=True, kw_only=True)
class FidelityRequest:
    """What to measure."""

    rows: Annotated[int, Ge(1)] = 4096
    """Rows behind all figures except those of the fits, from up to 8 shards."""
    keep_bits: tuple[int, ...] | None = None
    """Mantissa bits of z to try. None: 2-9."""
    top_k: tuple[int, ...] | None = None
    """Values of k to try for targets; needs the exact teacher. None: 16,32,64,128."""
    tail_samples: tuple[int, ...] | None = None
    """Numbers of tail samples to try, with each k. None: 16,64."""
    fit: bool = True
    """Whether to fit lenses to each form, which takes most of the time."""
    probe_heads: Annotated[int, Ge(1)] = 6
    """How many heads to fit, spread over layers."""
    heads: HeadNames | None = None
    """Heads to fit in place of these: 0,3 in each layer, or by name, such as 18.6,24.4. None: spread over layers."""
    probe_rows: Annotated[int, Ge(1)] = 65_536
    """Rows to fit on; whole shards are taken."""
    held_out_rows: Annotated[int, Ge(1)] = 16_384
    """Rows to judge lenses on: whole shards, at most a quarter of them."""
    work: Path | None = None
    """Directory for temporary caches, which are removed. None: the system's place."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the choice of rows, and of the fits."""

    def __post_init__(self) -> None:
        check(self)
        if self.seed >= 2**63 - 1:
            raise RequestError(f"seed is {self.seed}: it must be in 0 .. 2^63 - 2")
