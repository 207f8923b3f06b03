"""Files of prompts: one on each line, with a label where the file has one.

In: a `.txt` file with a prompt on each line (blank lines are left out), or a `.jsonl` file with an object on each line that
has `prompt` and perhaps `label` (a number, a word, true or false). Out: `Prompt`s in the order of the file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.reading.text_file import read_lines

SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt, and the place it comes from."""

    text: str
    label: str | None = None
    source: str = "a prompt"
    """`FILE:LINE`, for messages."""


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises `RequestError` for a file without prompts, or of another kind."""
    if path.suffix not in SUFFIXES:
        raise RequestError(
            f"{path} is not a file of prompts: give .txt (a prompt on each line) or .jsonl (objects with `prompt`, and `label` where known)"
        )
    if path.suffix == ".jsonl":
        return [prompt_from(source, body) for source, body in json_lines(path)]
    return [Prompt(text=line, source=source) for source, line in _lines(path)]


def json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`FILE:LINE` and the object of each line. Raises `RequestError` for a file without prompts, or that is not JSON."""
    lines = []
    for source, line in _lines(path):
        try:
            body: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{source} is not JSON: {error}") from None
        if not isinstance(body, dict) or not isinstance(body.get("prompt"), str) or not body["prompt"]:
            raise RequestError(f'{source} has no prompt: write {{"prompt": "..."}}')
        lines.append((source, body))
    return lines


def prompt_from(source: str, body: dict[str, Any]) -> Prompt:
    """The prompt of one of these objects. Raises `RequestError` for a label that is neither a word nor a number."""
    label = body.get("label")
    if isinstance(label, bool):
        label = int(label)
    if label is not None and not isinstance(label, str | int):
        raise RequestError(f"{source} has the label {label!r}: give a word, a whole number, true or false")
    return Prompt(text=body["prompt"], label=None if label is None else str(label), source=source)


def check_list(texts: Sequence[str], name: str) -> None:
    """Raises `RequestError` for a single string, which Python would take as a list of its characters."""
    if isinstance(texts, str):
        raise RequestError(f"{name} is the string {texts[:40]!r}: give a list of strings")


def distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each text, in the order of the file: a repeated text is not further evidence."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.text, prompt)
    return list(first.values())


def tokens_of(reader: LensedModel, prompt: Prompt) -> list[int]:
    """The token ids of a prompt. Raises `RequestError` with the file and line of the prompt."""
    try:
        return reader.tokens(prompt.text)
    except RequestError as error:
        raise RequestError(f"{prompt.source}: {error}") from None


def _lines(path: Path) -> list[tuple[str, str]]:
    """`FILE:LINE` and the text of each line that is not blank."""
    numbered = enumerate(read_lines(path), start=1)
    lines = [(f"{path}:{number}", line) for number, line in numbered if line.strip()]
    if not lines:
        raise RequestError(f"{path} holds no prompt: write one on each line")
    return lines
