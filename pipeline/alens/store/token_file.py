"""Reads the token sequences of a cache, or the documents of their tokens: NumPy's files, mapped into memory.

In: a file, the plan and the hash in it. Out: (sequences, seq_len) unsigned, or a `DamageError` that names the file.
"""

from pathlib import Path

import numpy as np

from alens.errors import DamageError
from alens.store import durable
from alens.store.document import MEND
from alens.store.schema import Plan
from alens.store.values import Array


def token_file(path: Path, plan: Plan, sha256: str, count: int | None, what: str) -> Array:
    """(sequences, seq_len) unsigned, below the count of `what`. Raises `DamageError` when hash or contents differ."""
    if not path.is_file() or durable.sha256_of(path) != sha256:
        raise DamageError(f"{path} is missing or altered: {MEND}")
    try:
        values_BT = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # objects, something else than an array, or a shape too large for numpy
        raise DamageError(f"{path} holds no numbers ({error}): make the cache anew") from None
    expected = (plan.tokens.sequences, plan.settings.seq_len)
    if values_BT.dtype.kind != "u" or values_BT.shape != expected:
        raise DamageError(
            f"{path} holds {values_BT.shape} {values_BT.dtype}, the plan says {expected} unsigned: make the cache anew"
        )
    if count is not None and values_BT.size and values_BT.max() >= count:
        raise DamageError(f"{path} has {values_BT.max()} among {count:,} {what}: make the cache anew")
    return np.asarray(values_BT)
