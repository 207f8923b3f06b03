"""What every page of an atlas says about where its numbers are from.

In: lenses, a cache and what was judged. Out: an `AtlasFacts`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from alens.lens.lenses import Lenses
from alens.store.cache_reader import Cache


@dataclass(frozen=True, kw_only=True)
class AtlasFacts:
    """What holds for all heads."""

    model: str
    design: str
    store: str
    rows: int
    judged_rows: int
    intervals_over: str
    groups: int
    no_write: str | None

    @classmethod
    def of_run(
        cls,
        lenses: Lenses,
        cache: Cache,
        judged: tuple[int, str, int],
        rows: int,
        no_write: str | None,
    ) -> "AtlasFacts":
        """The facts of one atlas; `judged` are rows, what intervals are over, and how many of these there are."""
        judged_rows, intervals_over, groups = judged
        return cls(
            model=lenses.record.model.name,
            design=lenses.record.design,
            store=Path(os.path.realpath(cache.root)).name,
            rows=rows,
            judged_rows=judged_rows,
            intervals_over=intervals_over,
            groups=groups,
            no_write=no_write,
        )

    @property
    def about(self) -> str:
        """In a sentence or two."""
        intervals = (
            f", with 95 % intervals over {self.groups} {self.intervals_over}" if self.groups > 1 else ""
        )
        left_out = "" if self.no_write is None else f" What heads write is left out: {self.no_write}."
        return (
            f"{self.model}, {self.design} lenses, over {self.rows:,} rows of the cache {self.store}; figures on "
            f"{self.judged_rows:,} held-out rows{intervals}.{left_out}"
        )
