"""Documents changed by hand, as whoever knows their form would do it: with the hash of the new contents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alens.store import document


def read(path: Path) -> dict[str, Any]:
    """What a document holds, without its hash."""
    return document.decode(path.read_bytes(), str(path))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the object that `path` holds."""
    body = read(path)
    change(body)
    path.write_bytes(document.encode(body))


def without_hash(path: Path, **changes: Any) -> None:
    """The document as an alens wrote it that put no hash into it; a change to None leaves a field out."""
    body = {**read(path), **changes}
    path.write_text(
        json.dumps({k: v for k, v in body.items() if k not in changes or v is not None}, indent=2)
    )
