"""How many variants fit into memory at once: what one takes, and what there is.

In: planned variants and a device. Out: rounds of them, one after the other, none of which takes more than half of
the memory that is free.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z
from alens.sweep.planned import Planned

COPIES = 5
"""Of every weight, float32: the weight, its gradient, two moments, the average."""

SHARE = 0.5
"""Of the free memory; the rest is for rows on their way, logits and everybody else."""

MOST_AT_ONCE = 16
"""More gain nothing: the read is shared by then."""


def rounds(
    fits: Sequence[Planned], cache: Cache, device: torch.device, at_once: int | None
) -> list[list[Planned]]:
    """Variants that run together, in their order; `at_once` bounds their number instead of their memory."""
    room = SHARE * free_bytes(device)
    found: list[list[Planned]] = []
    for fit in fits:
        last = found[-1] if found else []
        taken = sum(bytes_of(other, cache) for other in last) + bytes_of(fit, cache)
        full = len(last) >= (at_once or MOST_AT_ONCE) or (at_once is None and taken > room)
        if not last or full or last[0].reading != fit.reading:
            found.append([fit])
        else:
            last.append(fit)
    return found


def bytes_of(fit: Planned, cache: Cache) -> int:
    """What a variant takes at most: as if its lenses were linear, and with an unembedding for its held-out rows."""
    model, plan = cache.plan.model, fit.plan
    width = model.d_head if fit.variant.settings.site == ATTN_Z else model.d_model
    weights = len(plan.layers) * len(plan.heads) * (width + 1) * model.d_vocab
    return 4 * (COPIES * weights + model.d_model * model.d_vocab)


def free_bytes(device: torch.device) -> int:
    """Of the device; on a CPU no more than the job may have in all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return min([int(meminfo["MemAvailable"].split()[0]) * 1024, *_limits()])


def _limits() -> list[int]:
    """Limits that a scheduler set on this process and on what it is part of (cgroup 2)."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            group = Path("/sys/fs/cgroup") / line.removeprefix("0::").strip("/")
            for folder in (group, *group.parents):
                limit = folder / "memory.max"
                text = limit.read_text().strip() if limit.is_file() else "max"
                found += [int(text)] if text.isdigit() else []
    return found
