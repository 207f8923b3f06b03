"""From seconds a row to hours: how long a cache takes, and from how many passes on it pays. Pure arithmetic.

In: measured `Costs` and `FitCosts`. Out: hours, and `Passes`.

The cost model. To cache a row costs c (forward pass and reduction) plus w (encode, hash, write, sync, read
back). Each pass of a fit over the cache costs the larger of r (read) and g (fit), because the next shard is
read while this one is fitted. A fit without a cache pays the forward pass f in every pass. So P passes cost

    with a cache  c + w + P max(r, g)        without  P (f + g)

and the cache is cheaper from P = (c + w) / (f + g - max(r, g)) on. A pass is one epoch of one fit. Rows that
are committed already cost neither c nor w.
"""

import math
from dataclasses import dataclass

PASSES = (1, 2, 10)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds that one worker takes for a row of the cache."""

    forward_s: float
    """f: the bare model, all logits made."""
    compute_s: float
    """c: forward pass and reduction to the arrays of a shard."""
    write_s: float
    """w: encode, hash, write, sync, read back."""

    def cache_hours(self, num_rows: int) -> float:
        """Hours for c + w; an upper bound, because computing and writing overlap in part."""
        return num_rows * (self.compute_s + self.write_s) / 3600


@dataclass(frozen=True, kw_only=True)
class FitCosts:
    """Seconds that one pass of a fit takes for a row."""

    heads: int
    """Heads that are fitted, over all layers."""
    read_s: float
    """r: read and decode."""
    fit_s: float
    """g: loss, gradient and step."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Hours that some number of passes over all rows takes, with the cache and without."""

    passes: int
    cached_hours: float
    recomputed_hours: float

    @property
    def ratio(self) -> float:
        """How many times faster the cache is."""
        return self.recomputed_hours / self.cached_hours


def passes_table(costs: Costs, fit: FitCosts, num_rows: int, rows_left: int) -> tuple[Passes, ...]:
    """Hours of each number of passes in PASSES over `num_rows` rows, of which `rows_left` are still to be written."""
    return tuple(
        Passes(
            passes=passes,
            cached_hours=costs.cache_hours(rows_left) + num_rows * passes * max(fit.read_s, fit.fit_s) / 3600,
            recomputed_hours=num_rows * passes * (costs.forward_s + fit.fit_s) / 3600,
        )
        for passes in PASSES
    )


def break_even(costs: Costs, fit: FitCosts, share_left: float) -> float:
    """The number of passes from which on the cache takes less time; infinite if it never does.

    `share_left` is the share of rows that are not committed yet: only these cost computing and writing.
    """
    saved_s = costs.forward_s + fit.fit_s - max(fit.read_s, fit.fit_s)
    return share_left * (costs.compute_s + costs.write_s) / saved_s if saved_s > 0 else math.inf


def rows_of_slowest(num_shards: int, workers: int, rows_per_shard: int) -> int:
    """Rows of the worker with the most shards, which finishes last."""
    return -(-num_shards // workers) * rows_per_shard
