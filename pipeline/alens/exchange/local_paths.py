"""Places of this machine in what is to be published: absolute paths say user names, projects and disks.

In: a JSON value, or the bytes of a figure. Out: the value with every absolute path as `local:NAME`, its last part,
and what was shortened; or the places that the bytes name. `local:` can be no hub id: nobody who reads the lenses
looks for a model of that name on the hub, where it would be somebody else's.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL = "local:"

_WHOLE = re.compile(r"(~|/|file:/|[A-Za-z]:[\\/]).*", re.DOTALL)
_WITHIN = re.compile(r"(?<![\w.:/~-])~?/[^\s'\",;:()\[\]{}/]+(?:/[^\s'\",;:()\[\]{}/]+)+/?")
"""In a sentence: two parts at least, and no part of a URL."""

_HOMES = re.compile(
    rb"(?:/home|/Users|/root|/mnt|/scratch|/data|/tmp|[A-Za-z]:\\Users)[/\\][\w.-]+[\w./\\-]*"
)


@dataclass(frozen=True, kw_only=True)
class ShortenedPath:
    """A path that is not published."""

    file: str
    """Of the bundle."""
    field: str
    """Such as `model.id`."""
    was: str
    becomes: str


def shorten(value: Any, file: str, field: str = "") -> tuple[Any, list[ShortenedPath]]:
    """`value` without absolute paths, and what was changed in it."""
    if isinstance(value, str):
        changed = shorten_text(value)
        if changed == value:
            return value, []
        return changed, [ShortenedPath(file=file, field=field, was=value, becomes=changed)]
    if isinstance(value, dict):
        pairs = {key: shorten(part, file, f"{field}.{key}".strip(".")) for key, part in value.items()}
        return {key: part for key, (part, _) in pairs.items()}, [
            one for _, found in pairs.values() for one in found
        ]
    if isinstance(value, (list, tuple)):
        parts = [shorten(part, file, f"{field}[{index}]") for index, part in enumerate(value)]
        return [part for part, _ in parts], [one for _, found in parts for one in found]
    return value, []


def shorten_text(text: str) -> str:
    """A path becomes `local:` and its last part; so does each path within a sentence."""
    if _WHOLE.fullmatch(text) and "\n" not in text:
        return LOCAL + _last(text)
    return _WITHIN.sub(lambda found: LOCAL + _last(found[0]), text)


def named_in(content: bytes) -> list[str]:
    """Places of a machine that the bytes of a figure name, each once."""
    home = re.escape(str(Path.home()).encode())
    own = re.findall(home + rb"[\w./-]*", content) if len(home) > 2 else []
    return sorted({place.decode(errors="replace") for place in [*own, *_HOMES.findall(content)]})


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
