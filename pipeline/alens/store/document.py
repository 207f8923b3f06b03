"""The JSON documents of caches, lenses, fits and sweeps. Each holds the hash of its own contents.

In: a JSON object. Out: bytes that people can read. Reading checks every byte: a document is damaged unless it is,
byte for byte, what `encode` makes of its contents.
"""

import functools
import hashlib
import json
import logging
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError

log = logging.getLogger("alens")

OWN_HASH = "sha256"
"""The last field: the SHA-256 of the document without that field."""

MEND = "see `alens verify`, which can queue it for rewriting"


MOST_BYTES = 32 * 2**20
"""A document has no more bytes: the largest that alens writes, `fit.json` of a million shards, has 12 MB."""


def content(path: Path, mend: str = MEND) -> bytes:
    """The bytes of a document. Raises `OSError`, and `DamageError` for what cannot be a document, before it is read."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # opening a pipe would wait
        raise DamageError(f"{path} is not an ordinary file: {mend}")
    if status.st_size > MOST_BYTES:
        raise DamageError(
            f"{path} has {status.st_size:,} bytes, more than the {MOST_BYTES:,} allowed: {mend}"
        )
    return path.read_bytes()


def encode(body: Mapping[str, Any]) -> bytes:
    """The bytes of a document, its own hash last."""
    assert OWN_HASH not in body
    content = _bytes(body)
    if not body:
        return _bytes({OWN_HASH: hashlib.sha256(content).hexdigest()})
    # What `_bytes` makes of {**body, OWN_HASH: ...}; encoding `body` twice would take most of the time of reading records.
    last = f',\n "{OWN_HASH}": "{hashlib.sha256(content).hexdigest()}"'
    return content.removesuffix(b"\n}\n") + last.encode() + b"\n}\n"


def decode(content: bytes, where: str, mend: str = MEND) -> dict[str, Any]:
    """The object in `content`, without its hash; `where` names the file in errors, `mend` says what to do.

    Raises `DamageError` when any byte differs from what was written.
    """
    body = _object(content, where, mend)
    try:
        del body[OWN_HASH]
    except KeyError as error:
        raise DamageError(f"{where} is not whole ({error}): {mend}") from None
    if content != encode(body):
        raise DamageError(f"{where} was altered (its contents do not give its hash): {mend}")
    return body


def plain(path: Path, mend: str) -> dict[str, Any]:
    """The object in a JSON file of other programs, which holds no hash.

    Raises `OSError`, and `DamageError` for a file that is not a JSON object, is too large, or holds half of a surrogate
    pair.
    """
    body = _object(content(path, mend), str(path), mend)
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DamageError(f"{path} is not whole (it holds half of a surrogate pair): {mend}") from None
    return body


def decode_either(
    content: bytes,
    where: str,
    mend: str,
    *,
    field: str,
    hashed: tuple[int, ...],
    unhashed: int | None,
    holds: str,
) -> dict[str, Any]:
    """As `decode`, for a kind of file that older versions wrote without a hash: such a file is read with a warning.

    The field named `field` says which form the file has: one of `hashed` with a hash, `unhashed` without (None: older
    files lack the field). The result does not hold this field. `holds` says in the warning what cannot be checked.

    Raises `DamageError` as `decode` does, `RequestError` for any other form.
    """
    body = _object(content, where, mend)
    checked = OWN_HASH in body
    if checked:
        body = decode(content, where, mend)
    given = body.pop(field, None)
    if any(_same(given, form) for form in hashed) and not checked:
        raise DamageError(f"{where} is not whole (it lacks its hash): {mend}")
    if not any(_same(given, form) for form in (hashed if checked else (unhashed,))):
        reads = " and ".join(str(form) for form in (unhashed, *hashed) if form is not None)
        raise RequestError(f"{where} has {field} {given!r}; this alens reads {field} {reads}")
    if not checked:
        _warn_unchecked(where, holds)
    return body


def _same(given: object, form: int | None) -> bool:
    return type(given) is type(form) and given == form


@functools.cache
def _warn_unchecked(where: str, holds: str) -> None:
    """Warns once in a process: a command may read the same file several times."""
    log.warning(
        "%s was written by an alens that put no hash into it: whether %s are as they were written cannot be checked",
        where,
        holds,
    )


def _object(content: bytes, where: str, mend: str) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{where} is not whole ({error}): {mend}") from None
    if not isinstance(body, dict):
        raise DamageError(f"{where} is not whole (it holds no JSON object): {mend}")
    return body


def _bytes(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1) + "\n").encode()
