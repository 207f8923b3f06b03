"""Whether a `zarr.json` says what the plan's arrays are: shape, dtype, chunks, codecs, fill value, names.

In: a plan, a file's path in arrays.zarr, its bytes. Out: whether it differs. Meanings are compared, not
bytes: another version of zarr may write the same metadata in another form.
"""

import json
from functools import lru_cache
from typing import Any

from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore

from alens.store.arrays import ArraySpec, shard_arrays, weight_arrays
from alens.store.schema import Plan
from alens.store.writer import create_array


def differs(plan: Plan, key: str, content: bytes) -> bool:
    """Whether `content` is not the metadata of the array or group at `key`, which ends in zarr.json."""
    name = key.removesuffix("zarr.json").rstrip("/")
    spec = {**shard_arrays(plan), **weight_arrays(plan)}.get(name)
    try:
        found = json.loads(content)
        if spec is None:
            return bool(
                found["node_type"] != "group" or (not name and found["attributes"] != group_attributes(plan))
            )
        return _meaning(ArrayV3Metadata.from_dict(found)) != _expected(spec)
    except Exception:  # whatever zarr says of metadata that it cannot use
        return True


def group_attributes(plan: Plan) -> dict[str, Any]:
    """What the root group of arrays.zarr says."""
    return {"alens_format": 1, "plan": plan.identity}


@lru_cache(maxsize=1024)
def _expected(spec: ArraySpec) -> str:
    metadata = create_array(MemoryStore(), spec).metadata
    assert isinstance(metadata, ArrayV3Metadata)
    return _meaning(metadata)


def _meaning(metadata: ArrayV3Metadata) -> str:
    """Comparable: a NaN is not equal to itself, its text is."""
    return json.dumps(metadata.to_dict(), sort_keys=True, default=str)
