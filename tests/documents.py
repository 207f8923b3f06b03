"""Changes documents by hand, with the hash of the new contents, as somebody who knows their form would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alens.store import document


def read(path: Path) -> dict[str, Any]:
    """The object of a document, without its hash."""
    return document.decode(path.read_bytes(), str(path))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the object that `path` holds."""
    body = read(path)
    change(body)
    path.write_bytes(document.encode(body))


def without_hash(path: Path, **changes: Any) -> None:
    """Write the document as an older alens did, without a hash. A change to None leaves a field out."""
    body = {**read(path), **changes}
    path.write_text(
        json.dumps({k: v for k, v in body.items() if k not in changes or v is not None}, indent=2)
    )
