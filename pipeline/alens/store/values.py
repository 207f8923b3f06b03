"""Which numbers an array of a cache can hold. Undamaged bytes may still be numbers that no model produces.

In: an array's name, its values, the plan. Out: what is wrong with them, in a few words, or None. One pass over the
values, without a copy.
Shapes: N rows, K top-k, V vocabulary.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.store.arrays import ArraySpec
from alens.store.schema import Plan

Array = npt.NDArray[Any]

ROUNDING = 0.01
"""Nats by which a log-probability or an entropy may exceed its limit: bfloat16 models are 0.004 off."""
SHARE = 0.01
"""The share by which a sum of distributions may differ from their number."""
NAMED = 5
"""How many heads a message names."""
FLOAT16_INFINITY = 0x7C00


def wrong(plan: Plan, spec: ArraySpec, shard: int | None, values: Array) -> str | None:
    """What is wrong with `values`; None where nothing is. `shard` is None for the model's weights."""
    if not values.size:
        return None
    if values.dtype.kind == "f" and spec.name != "targets/log_probs" and not _finite(values):
        return "numbers that are not finite" + _heads(spec, values)
    settings, d_vocab = plan.settings, plan.model.d_vocab
    if spec.name.endswith(("/final_scale", "/write_scale", "/cross_scale")):
        return _outside("scales", values, 0, math.inf)
    match spec.name:
        case "targets/ids" | "targets/tail_ids" | "rows/token":
            return _outside("token ids", values, 0, d_vocab - 1)
        case "targets/log_probs":
            return _outside("log-probabilities", values, -math.inf, ROUNDING)
        case "targets/entropy":
            return _outside("entropies", values, -ROUNDING, math.log(d_vocab) + ROUNDING)
        case "rows/position":
            return _outside("positions", values, 0, settings.seq_len - 1)
        case "rows/sequence":
            first = (shard or 0) * settings.sequences_per_shard
            return _outside("sequences", values, first, first + settings.sequences_per_shard - 1)
        case "stats/final/squares":
            return _outside("sums of squares", values, 0, math.inf)
        case "stats/output":
            rows = settings.sequences_per_shard * (settings.seq_len - 1)
            return _outside("summed probabilities", values, 0, rows * (1 + SHARE)) or _outside(
                "sums of distributions", values.sum(-1), rows * (1 - SHARE), rows * (1 + SHARE)
            )
    return None


def _outside(what: str, values: Array, least: float, most: float) -> str | None:
    low, high = values.min(), values.max()
    if least <= low and high <= most:  # False for NaN too
        return None
    return f"{what} from {low:g} to {high:g}, where {least:g} to {most:g} can be"


def _heads(spec: ArraySpec, values: Array) -> str:
    """Which heads the wrong values belong to, where an array has heads."""
    if "head" not in spec.dimensions:
        return ""
    axis = spec.dimensions.index("head")
    by_head = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    heads = np.flatnonzero(~np.isfinite(by_head).all(axis=1))
    return f" (head {', '.join(map(str, heads[:NAMED]))}{', ...' if len(heads) > NAMED else ''})"


def _finite(values: Array) -> bool:
    if values.dtype == np.float16 and values.flags.c_contiguous:  # six times as fast as numpy's isfinite
        return bool((values.view(np.uint16) & 0x7FFF).max() < FLOAT16_INFINITY)
    return bool(np.isfinite(values).all())
