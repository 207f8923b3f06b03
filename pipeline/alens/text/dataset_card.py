"""The configurations that the card of a data set names: which files are which split of which part.

In: a directory with the `README.md` of a data set of the Hugging Face hub. Out: the `configs` of its front matter.
A README.md without `configs` is not a card, and says nothing about files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One part of a data set, as its card names it."""

    name: str
    patterns: Mapping[str, tuple[str, ...]] | None = None
    """For each split the patterns of its file names. None: the file names themselves say which split they are."""
    folder: str | None = None
    """The folder that it lies in. None: it may be anywhere in the data set."""
    is_default: bool = False


def read_card(folder: Path) -> tuple[Configuration, ...]:
    """The configurations that the card in `folder` names; empty where there is no card, or where it names none.

    Raises `RequestError` for a card that cannot be followed.
    """
    import yaml
    from huggingface_hub import metadata_load

    path = folder / CARD
    if not path.is_file():
        return ()
    try:
        configs = (metadata_load(path) or {}).get("configs")
        return tuple(map(_configuration, configs)) if configs else ()
    except (
        OSError,
        UnicodeDecodeError,
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(
            f"the head of {path} does not say which files to read ({why}): mend it, or move it away"
        ) from None


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that match a pattern of a card. A name equal to the pattern matches, even with special characters in it."""
    pattern = pattern.removeprefix("./")
    if pattern in names:
        return [pattern]
    expression = _expression(pattern)
    return [name for name in names if expression.match(name)]


def _expression(pattern: str) -> re.Pattern[str]:
    """Raises `ValueError` for a pattern that cannot be read."""
    from fsspec.utils import glob_translate  # the patterns of cards are fsspec's

    return re.compile(glob_translate(pattern))


def _configuration(body: Any) -> Configuration:
    files, name = body.get("data_files"), body.get("config_name", "default")
    if isinstance(files, list) and files and isinstance(files[0], dict):
        patterns = {str(part["split"]): _strings(part["path"]) for part in files}
    elif isinstance(files, dict):
        patterns = {str(split): _strings(paths) for split, paths in files.items()}
    else:
        patterns = {} if files is None else {"train": _strings(files)}
    return Configuration(
        name=str(name),
        patterns=patterns or None,
        folder=body.get("data_dir"),
        is_default=bool(body.get("default")) or name == "default",
    )


def _strings(value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ValueError(f"{pattern!r} is not a path")
        _expression(pattern)
    return patterns
