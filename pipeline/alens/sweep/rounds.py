"""How many variants fit into memory at once.

In: planned variants and a device. Out: rounds of them, one after the other, none of which takes more than half of
the memory that is free.
"""

from collections.abc import Sequence

import torch

from alens.machine.allotment import free_bytes
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z
from alens.sweep.planned import Planned

COPIES = 5
"""Copies of every weight, float32: the weight, its gradient, two moments, the average."""

SHARE = 0.5
"""The share of the free memory to take; the rest is for rows on their way, logits and other programs."""

MOST_AT_ONCE = 16
"""More variants at once gain nothing: the cost of the read is small by then."""


def in_rounds(
    fits: Sequence[Planned], cache: Cache, device: torch.device, at_once: int | None
) -> list[list[Planned]]:
    """Variants that run together, in their order; `at_once` bounds their number instead of their memory."""
    room = SHARE * free_bytes(device)
    rounds: list[list[Planned]] = []
    for fit in fits:
        last = rounds[-1] if rounds else []
        taken = sum(bytes_of(other, cache) for other in last) + bytes_of(fit, cache)
        full = len(last) >= (at_once or MOST_AT_ONCE) or (at_once is None and taken > room)
        if not last or full or last[0].shared_read != fit.shared_read:
            rounds.append([fit])
        else:
            last.append(fit)
    return rounds


def bytes_of(fit: Planned, cache: Cache) -> int:
    """The most memory that a variant takes: as if its lenses were linear, with an unembedding for its held-out rows."""
    model, plan = cache.plan.model, fit.plan
    width = model.d_head if fit.variant.settings.site == ATTN_Z else model.d_model
    weights = len(plan.lenses) * (width + 1) * model.d_vocab
    return 4 * (COPIES * weights + model.d_model * model.d_vocab)
