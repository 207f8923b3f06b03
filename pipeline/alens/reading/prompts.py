"""Files of prompts: one on each line, with a label where the file has one; or conversations.

In: a `.txt` file with a prompt on each line (blank lines are left out), a `.jsonl` file with an object on each line that
has `prompt` and perhaps `label` (a number, a word, true or false), or a `.json` file of conversations (`reading/chat.py`).
Out: `Prompt`s in the order of the file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from alens.errors import RequestError
from alens.reading.chat import Message, Turn, conversation, plain_text, read_chat, text_and_turns
from alens.reading.lensed_model import LensedModel
from alens.reading.settings import Role
from alens.reading.text_file import read_lines

SUFFIXES = (".txt", ".jsonl", ".json")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt, and the place it comes from."""

    text: str
    label: str | None = None
    source: str = "a prompt"
    """`FILE:LINE`, for messages."""
    role: Role | None = None
    """Whose message `text` is, for the chat template of the model; None: it is plain text."""
    messages: tuple[Message, ...] = ()
    """A conversation, of which the chat template makes the prompt in place of `text`."""

    @classmethod
    def chat(cls, messages: Any, source: str = "chat") -> Self:
        """A conversation: messages such as {"role": "user", "content": "Hi"}. Raises `RequestError` for anything else."""
        checked = conversation(messages, source)
        return cls(text=plain_text(checked), source=source, messages=checked)


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises `RequestError` for a file without prompts, or of another kind."""
    if path.suffix not in SUFFIXES:
        raise RequestError(
            f"{path} is not a file of prompts: give .txt (a prompt on each line), .jsonl (objects with `prompt`, and `label` "
            "where known) or .json (conversations)"
        )
    if path.suffix == ".json":
        return chat_prompts(path)
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


def chat_prompts(path: Path) -> list[Prompt]:
    """The conversations of a file. Raises `RequestError` for a file of another form."""
    return [
        Prompt.chat(body, f"{path}, conversation {number}")
        for number, body in enumerate(read_chat(path), start=1)
    ]


def in_role(prompts: Sequence[Prompt], role: Role | None) -> list[Prompt]:
    """Plain prompts as messages of a role; None: as they are. Conversations keep their own."""
    return [prompt if role is None else replace(prompt, role=role) for prompt in prompts]


def given_prompts(texts: Sequence[str], chat: Sequence[Path], role: Role | None) -> list[str | Prompt]:
    """Plain prompts, as messages of `role` where there is one, then the conversations of files. Raises `RequestError`."""
    plain: list[str | Prompt] = list(texts)
    if role is not None:
        plain = [Prompt(text=text, source=f"the prompt {text!r}", role=role) for text in texts]
    asked = [*plain, *(prompt for path in chat for prompt in chat_prompts(path))]
    if not asked:
        raise RequestError("no prompt was given: write one, or name a file of conversations with --chat")
    return asked


def text_of(reader: LensedModel, prompt: Prompt | str) -> tuple[str, tuple[Turn, ...]]:
    """The text of a prompt with its turns, which only a conversation has. Raises `RequestError` like the template."""
    if isinstance(prompt, str):
        return prompt, ()
    messages = prompt.messages
    if not messages and prompt.role is not None:
        messages = (Message(role=prompt.role, content=prompt.text),)
    return text_and_turns(reader.model, messages, prompt.source) if messages else (prompt.text, ())


def texts_of(reader: LensedModel, prompts: Sequence[Prompt | str]) -> list[str]:
    """The text of each. Raises `RequestError` like the template."""
    return [text_of(reader, prompt)[0] for prompt in prompts]


def check_list(texts: Sequence[Any], name: str) -> None:
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
        return reader.tokens(text_of(reader, prompt)[0])
    except RequestError as error:
        raise RequestError(f"{prompt.source}: {error}") from None


def _lines(path: Path) -> list[tuple[str, str]]:
    """`FILE:LINE` and the text of each line that is not blank."""
    numbered = enumerate(read_lines(path), start=1)
    lines = [(f"{path}:{number}", line) for number, line in numbered if line.strip()]
    if not lines:
        raise RequestError(f"{path} holds no prompt: write one on each line")
    return lines
