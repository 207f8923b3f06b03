"""An object whose pickle does something. Code that reads files from elsewhere must never run it."""

import os
from pathlib import Path


class Malicious:
    """Unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))
