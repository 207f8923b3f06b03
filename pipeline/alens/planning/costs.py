"""Seconds a row, and what follows: hours of a cache, whether it fits, when it pays. Pure arithmetic.

In: `Costs`, measured. Out: hours, `Room`, `Passes`.

The model of cost. A row of a cache costs c (forward pass and reduction) and w (encode, hash, write, sync,
read back); each pass of a fit over it costs the larger of r (read) and g (fit), because the next shard is
read while this one is fitted. A fit without a cache pays the forward pass f on each pass. So P passes cost

    with a cache  c + w + P max(r, g)        without  P (f + g)

and the cache is cheaper from P = (c + w) / (f + g - max(r, g)) on. A pass is one epoch of one fit. Rows that
are committed already cost no c and no w.
"""

import math
from dataclasses import dataclass

PASSES = (1, 2, 10)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds for a row of the cache, on one worker."""

    forward_s: float
    """f: the bare model, all logits made."""
    compute_s: float
    """c: forward pass and reduction to the arrays of a shard."""
    write_s: float
    """w: encode, hash, write, sync, read back."""

    def cache_hours(self, num_rows: int) -> float:
        """c + w: computing and writing may overlap in part, so this is the most."""
        return num_rows * (self.compute_s + self.write_s) / 3600


@dataclass(frozen=True, kw_only=True)
class FitCosts:
    """Seconds for a row of one pass of a fit."""

    heads: int
    """Heads that are fitted, of all layers of the fit together."""
    read_s: float
    """r: read and decode."""
    fit_s: float
    """g: loss, gradient and step."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Hours of some passes over all rows, either way."""

    passes: int
    cached_hours: float
    recomputed_hours: float

    @property
    def ratio(self) -> float:
        """How many times less the cache takes."""
        return self.recomputed_hours / self.cached_hours


def passes_table(costs: Costs, fit: FitCosts, num_rows: int, rows_left: int) -> tuple[Passes, ...]:
    """The hours of PASSES passes over `num_rows` rows, of which `rows_left` are still to be written."""
    return tuple(
        Passes(
            passes=passes,
            cached_hours=costs.cache_hours(rows_left) + num_rows * passes * max(fit.read_s, fit.fit_s) / 3600,
            recomputed_hours=num_rows * passes * (costs.forward_s + fit.fit_s) / 3600,
        )
        for passes in PASSES
    )


def break_even(costs: Costs, fit: FitCosts, share_left: float) -> float:
    """The number of passes from which on the cache takes less; infinite where it never does.

    Writing counts for `share_left` of the rows: those that are not committed yet.
    """
    saved_s = costs.forward_s + fit.fit_s - max(fit.read_s, fit.fit_s)
    return share_left * (costs.compute_s + costs.write_s) / saved_s if saved_s > 0 else math.inf


def rows_of_slowest(num_shards: int, workers: int, rows_per_shard: int) -> int:
    """Rows of the worker with the most shards: the others are done before it."""
    return -(-num_shards // workers) * rows_per_shard


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the file system has, and what is still to be written."""

    where: str
    """The directory that was asked."""
    needed_bytes: int
    free_bytes: int
    needed_inodes: int
    free_inodes: int | None
    """None where the file system has no limit that it tells."""

    def shortfall(self) -> str | None:
        """`does not fit: needs X, free Y`; None when it fits."""
        if self.needed_bytes > self.free_bytes:
            return (
                f"does not fit: needs {self.needed_bytes:,} bytes, free {self.free_bytes:,} in {self.where}"
            )
        if self.free_inodes is not None and self.needed_inodes > self.free_inodes:
            return f"does not fit: needs {self.needed_inodes:,} files and directories, free {self.free_inodes:,} in {self.where}"
        return None
