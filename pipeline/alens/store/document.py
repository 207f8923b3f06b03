"""The JSON documents of a cache: plan, commit records, manifest. Each holds the hash of its own contents.

In: a JSON object. Out: bytes that people can read, and of which every single one is checked on reading: a
document is damaged when it is not, byte for byte, what its contents are written as.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from alens.errors import DamageError

OWN_HASH = "sha256"
"""The last field: SHA-256 of the document without it."""

MEND = "see `alens verify`, which can queue it for rewriting"


def encode(body: Mapping[str, Any]) -> bytes:
    """The bytes of a document, its own hash last."""
    assert OWN_HASH not in body
    return _bytes({**body, OWN_HASH: hashlib.sha256(_bytes(body)).hexdigest()})


def decode(content: bytes, where: str) -> dict[str, Any]:
    """The object in `content`, without its hash; `where` names the file in errors.

    Raises `DamageError` when a byte is not as it was written.
    """
    try:
        found = json.loads(content)
        found.pop(OWN_HASH)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamageError(f"{where} is no whole document ({error}): {MEND}") from None
    if content != encode(found):
        raise DamageError(f"{where} was altered (its contents do not give its hash): {MEND}")
    return dict(found)


def _bytes(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1) + "\n").encode()
