"""Paths of this machine in files to be published: they reveal names of users, projects and disks.

In: a JSON value, or the bytes of a figure. Out: the value with every absolute path as `local:NAME`, where NAME is its
last part, and which paths were shortened; or the paths in the bytes. A hub id cannot begin with `local:`, so readers
of the lenses do not look for such a model on the hub, where it would be somebody else's.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL = "local:"

_WHOLE = re.compile(r"(~|/|file:/|[A-Za-z]:[\\/]).*", re.DOTALL)
_WITHIN = re.compile(r"(?<![\w.:/~-])~?/[^\s'\",;:()\[\]{}/]+(?:/[^\s'\",;:()\[\]{}/]+)+/?")
"""A path in a sentence: it has two parts at least, and is not a part of a URL."""

_HOMES = re.compile(
    rb"(?:/home|/Users|/root|/mnt|/scratch|/data|/tmp|[A-Za-z]:\\Users)[/\\][\w.-]+[\w./\\-]*"
)


@dataclass(frozen=True, kw_only=True)
class ShortenedPath:
    """A path that is published by its last part only."""

    file: str
    """The file of the bundle that names it."""
    field: str
    """The field, such as `model.id`."""
    was: str
    becomes: str


def shorten(value: Any, file: str, field: str = "") -> tuple[Any, list[ShortenedPath]]:
    """`value` without absolute paths, and the paths that were shortened."""
    if isinstance(value, str):
        changed = shorten_text(value)
        if changed == value:
            return value, []
        return changed, [ShortenedPath(file=file, field=field, was=value, becomes=changed)]
    if isinstance(value, dict):
        pairs = {key: shorten(part, file, f"{field}.{key}".strip(".")) for key, part in value.items()}
        return {key: part for key, (part, _) in pairs.items()}, [
            path for _, paths in pairs.values() for path in paths
        ]
    if isinstance(value, (list, tuple)):
        parts = [shorten(part, file, f"{field}[{index}]") for index, part in enumerate(value)]
        return [part for part, _ in parts], [path for _, paths in parts for path in paths]
    return value, []


def shorten_text(text: str) -> str:
    """A path becomes `local:` and its last part, and so does each path within a sentence."""
    if _WHOLE.fullmatch(text) and "\n" not in text:
        return LOCAL + _last(text)
    return _WITHIN.sub(lambda match: LOCAL + _last(match[0]), text)


def named_in(content: bytes) -> list[str]:
    """Places of a machine that the bytes of a figure name, each once."""
    home = re.escape(str(Path.home()).encode())
    own = re.findall(home + rb"[\w./-]*", content) if len(home) > 2 else []
    return sorted({place.decode(errors="replace") for place in [*own, *_HOMES.findall(content)]})


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
