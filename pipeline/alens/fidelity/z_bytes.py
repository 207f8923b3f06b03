"""How many bytes a row each form of z takes: one shard is written in that form, and the bytes of its files are counted.

In: a cache, some layers, forms. Out: bytes of z (and of its scales) a row, for all cached layers, in proportion to those
that were written. How well rounded values compress depends on the values, so this is measured, not computed.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alens.fidelity.forms import ZForm
from alens.fidelity.reencode import reencode
from alens.job.progress import ShouldStop, never
from alens.store.cache_reader import Cache


def stored_z_bytes(cache: Cache) -> float:
    """Bytes a row that the files of z take in the cache."""
    records = [cache.commits.record(shard)["files"] for shard in cache.shards]
    return _z_bytes(records) / (len(records) * cache.plan.settings.rows_per_shard)


def written_z_bytes(
    cache: Cache, form: ZForm, layers: Sequence[int], work: Path, should_stop: ShouldStop = never
) -> float | None:
    """Bytes a row that z of all cached layers would take in `form`; None when `should_stop` says so."""
    root = work / "sizes"
    try:
        written = reencode(
            cache, root, shards=cache.shards[-1:], layers=layers, z=form, exact_teacher=False, should_stop=should_stop
        )  # fmt: skip
        if written is None:
            return None
        return stored_z_bytes(written) * len(cache.plan.layers) / len(layers)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _z_bytes(records: Iterable[Any]) -> int:
    return sum(
        file["bytes"]
        for files in records
        for key, file in files.items()
        if key.startswith(("sites/attn.z/", "scales/attn.z/"))
    )
