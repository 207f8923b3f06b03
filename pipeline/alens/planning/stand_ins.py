"""Numbers in the place of those that were not computed, to time the codecs and a fit by: only their shapes matter.

In: a `Plan` of one shard. Out: an array for each of the plan's, random, such that a fit of them is finite.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from alens.store.arrays import ArraySpec, shard_arrays
from alens.store.schema import Plan

ENTROPY = 3.0
"""Nats."""


def stand_ins(plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """All arrays of the one shard of `plan`."""
    random = np.random.default_rng(0)
    return {name: _values(spec, plan, random) for name, spec in shard_arrays(plan).items()}


def _values(spec: ArraySpec, plan: Plan, random: np.random.Generator) -> npt.NDArray[Any]:
    shape, dtype = spec.shard_shape(), np.dtype(spec.dtype)
    if spec.name == "targets/ids":
        first_N1 = random.integers(plan.model.d_vocab, size=(shape[0], 1))
        return ((first_N1 + np.arange(shape[1])) % plan.model.d_vocab).astype(dtype)
    if spec.name == "targets/log_probs":
        return np.full(shape, -np.log(2.0 * shape[1]), dtype)
    if spec.name == "targets/entropy":
        return np.full(shape, ENTROPY, dtype)
    if spec.name == "rows/position":
        return (np.arange(shape[0]) % plan.settings.seq_len).astype(dtype)
    if spec.name == "stats/output":
        return np.full(shape, plan.rows / shape[-1], dtype)
    if spec.name.endswith("/outer") and shape[-1] == shape[-2]:
        return np.broadcast_to(plan.rows * np.eye(shape[-1]), shape).astype(dtype)
    if dtype.kind in "ui":
        return random.integers(min(plan.model.d_vocab, np.iinfo(dtype).max), size=shape).astype(dtype)
    return random.standard_normal(shape, np.float32).astype(dtype)
