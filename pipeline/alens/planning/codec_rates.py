"""How fast the codecs of the store are, and how small they make what they compress: measured in memory on real values.

In: the arrays of some rows, and their plan. Out: `CodecRates`.
"""

import functools
from dataclasses import dataclass

import torch
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from alens.planning.budget import timed
from alens.planning.model_rates import ModelRates
from alens.store import writer
from alens.store.arrays import shard_arrays
from alens.store.paths import StorePaths


@dataclass(frozen=True, kw_only=True)
class CodecRates:
    """The codecs of the store."""

    encode_s: float
    """Seconds a row, over all arrays."""
    decode_s: dict[str, float]
    """Seconds a row, by array."""
    stored_share: dict[str, float]
    """Bytes on disk for a byte of values, by compressed array."""


def codec_rates(rates: ModelRates, rows_per_shard: int) -> CodecRates:
    """Encode and decode the computed arrays as shard files in memory.

    What is kept of a shard and not of its rows takes the same time for a shard of `rows_per_shard` rows.
    """
    memory, cpu = MemoryStore(), torch.device("cpu")
    encode_s, decode_s, stored_share = 0.0, {}, {}
    for name, spec in shard_arrays(rates.plan).items():
        values, rows = rates.arrays[name], rates.plan.rows
        if spec.dimensions[0] == "shard":
            rows = rows_per_shard
        array = writer.create_array(memory, spec).with_config({"write_empty_chunks": True})
        _, encoded = timed(functools.partial(array.__setitem__, ..., values), cpu)
        _, decoded = timed(functools.partial(array.__getitem__, ...), cpu)
        # zarr works in one thread of its own: its CPU time is not shared out
        encode_s += min(encoded.wall_s, encoded.cpu_s) / rows
        decode_s[name] = min(decoded.wall_s, decoded.cpu_s) / rows
        if spec.compressed:
            key = f"{name}/{StorePaths.shard_key(0, len(spec.shape))}"
            stored_share[name] = sync(memory.getsize(key)) / values.nbytes
    return CodecRates(encode_s=encode_s, decode_s=decode_s, stored_share=stored_share)
