"""Whether a `zarr.json` says what the plan's arrays are: shape, dtype, chunks, codecs, fill value, names.

In: a plan, its arrays, a file's path in arrays.zarr. Out: whether it differs. Readers and `verify` ask here. Meanings are compared, not
bytes: another version of zarr may write the same metadata in another form.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore

from alens.store.arrays import ArraySpec
from alens.store.schema import Plan
from alens.store.writer import create_array

MOST_BYTES = 2**20
"""The most bytes of a `zarr.json`; those of alens have some kilobytes."""

NOT_THE_PLANS = "does not describe the array that the plan makes"


def content(path: Path) -> bytes:
    """The bytes of a `zarr.json`. Raises `OSError`; of a file that is too large for one, the first bytes come."""
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def differs(plan: Plan, specs: Mapping[str, ArraySpec], key: str, content: bytes) -> bool:
    """Whether `content` is not the metadata of the array or group at `key`, which ends in zarr.json.

    `specs` are all arrays of the plan, by name.
    """
    name = key.removesuffix("zarr.json").rstrip("/")
    spec = specs.get(name)
    if len(content) > MOST_BYTES:
        return True
    expected = (
        None if spec is None else _expected(spec)
    )  # what the machine refuses here is not the file's fault
    try:
        found = json.loads(content)
        if spec is None:
            return bool(
                found["node_type"] != "group" or (not name and found["attributes"] != group_attributes(plan))
            )
        return _meaning(ArrayV3Metadata.from_dict(found)) != expected
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
    """Comparable: a NaN is not equal to itself, its text is. What attributes tell people is not compared."""
    return json.dumps({**metadata.to_dict(), "attributes": None}, sort_keys=True, default=str)
