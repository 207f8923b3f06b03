"""Compares a `zarr.json` with the plan: shape, dtype, chunks, codecs, fill value, names of dimensions.

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
"""A `zarr.json` has no more bytes; those of alens have some kilobytes."""

NOT_THE_PLANS = "does not describe the array that the plan makes"


def content(path: Path) -> bytes:
    """The bytes of a `zarr.json`. Raises `OSError`. Of a file that is too large to be one, only the first bytes are read."""
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
    )  # outside of `try`: an error here is not the file's fault
    try:
        body = json.loads(content)
        if spec is None:
            return bool(
                body["node_type"] != "group" or (not name and body["attributes"] != group_attributes(plan))
            )
        return _meaning(ArrayV3Metadata.from_dict(body)) != expected
    except Exception:  # zarr raises many kinds for metadata that it cannot use
        return True


def group_attributes(plan: Plan) -> dict[str, Any]:
    """The attributes of the root group of arrays.zarr."""
    return {"alens_format": 1, "plan": plan.identity}


@lru_cache(maxsize=1024)
def _expected(spec: ArraySpec) -> str:
    metadata = create_array(MemoryStore(), spec).metadata
    assert isinstance(metadata, ArrayV3Metadata)
    return _meaning(metadata)


def _meaning(metadata: ArrayV3Metadata) -> str:
    """Metadata as text that can be compared: a NaN does not equal itself, but its text does. Attributes are left out."""
    return json.dumps({**metadata.to_dict(), "attributes": None}, sort_keys=True, default=str)
