"""What tests ask a reader of published lenses for."""

from pathlib import Path
from typing import Any

from alens import ImportRequest


def request(source: Path, **given: Any) -> ImportRequest:
    """The request that a reader takes; readers write nothing."""
    return ImportRequest(source=source, lenses=Path("lenses"), model="demo", **given)
