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
    read = _from_json if path.suffix == ".jsonl" else _from_text
    prompts = [
        read(line, f"{path}:{number}")
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    ]
    if not prompts:
        raise RequestError(f"{path} holds no prompt: write one on each line")
    return prompts


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


def _from_text(line: str, source: str) -> Prompt:
    return Prompt(text=line, label=None, source=source)


def _from_json(line: str, source: str) -> Prompt:
    try:
        body: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{source} is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("prompt"), str) or not body["prompt"]:
        raise RequestError(f'{source} has no prompt: write {{"prompt": "..."}}')
    label = body.get("label")
    if isinstance(label, bool):
        label = int(label)
    if label is not None and not isinstance(label, str | int):
        raise RequestError(f"{source} has the label {label!r}: give a word, a whole number, true or false")
    return Prompt(text=body["prompt"], label=None if label is None else str(label), source=source)
