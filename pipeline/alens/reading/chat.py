"""Conversations as prompts: a file of messages, and where the turns are in the text that the chat template makes.

In: a `.json` file with a list of messages (objects with `role` and `content`), or several such lists. Out: `Message`s; with a
model, the text of a conversation and its `Turn`s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.model import chat_template
from alens.model.models import LoadedModel
from alens.reading.text_file import read_lines

TEMPLATE = "template"
"""The name of what a template says by itself before the first turn, such as a system message of its own."""

EXAMPLE = '[{"role": "user", "content": "..."}]'


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A stretch of a conversation's text."""

    name: str
    """The role of its message, or `TEMPLATE`."""
    start: int
    """Its first character; it ends where the next turn starts."""


def read_chat(path: Path) -> list[tuple[Message, ...]]:
    """The conversations of a file. Raises `RequestError` for a file of another form."""
    try:
        body = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not JSON: {error}") from None
    if isinstance(body, list) and body and all(isinstance(entry, list) for entry in body):
        return [conversation(one, f"{path}, conversation {n}") for n, one in enumerate(body, start=1)]
    return [conversation(body, str(path))]


def conversation(body: Any, source: str) -> tuple[Message, ...]:
    """Checked messages, from objects with `role` and `content` or `Message`s. Raises `RequestError`."""
    if not isinstance(body, Sequence) or isinstance(body, str) or not body:
        raise RequestError(f"{source} is not a list of messages: write {EXAMPLE}, or a list of such lists")
    return tuple(_message(one, f"{source}, message {number}") for number, one in enumerate(body, start=1))


def _message(body: Any, source: str) -> Message:
    if isinstance(body, Message):
        return body
    values = {name: body.get(name) if isinstance(body, Mapping) else None for name in ("role", "content")}
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            raise RequestError(
                f"{source} has no {name}: write {EXAMPLE}, each with a text as role and content"
            )
    return Message(role=str(values["role"]), content=str(values["content"]))


def plain_text(messages: Sequence[Message]) -> str:
    """A conversation as people read it, before any template: it tells one from another."""
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def text_and_turns(
    model: LoadedModel, messages: Sequence[Message], source: str
) -> tuple[str, tuple[Turn, ...]]:
    """What the template makes of a conversation, and its turns; none where a template changes earlier ones.

    Raises `RequestError` where there is no template, or it refuses the messages.
    """
    bodies = [{"role": one.role, "content": one.content} for one in messages]
    text = chat_template.applied(model, bodies, source)
    ends = [_end(model, bodies[:number], text) for number in range(1, len(bodies))]
    if bodies[-1]["role"] != chat_template.ASSISTANT:
        ends.append(_end(model, bodies, text))
    if None in ends:
        return text, ()
    starts = [0, *(end for end in ends if end is not None)]
    names = [one.role for one in messages] + [chat_template.ASSISTANT]
    turns = [Turn(name=name, start=start) for name, start in zip(names, starts, strict=False)]
    header = _header(model, bodies[0])
    before = text.find(f"{header}{bodies[0]['content']}") if header else 0
    if before > 0:
        turns = [Turn(name=TEMPLATE, start=0), Turn(name=names[0], start=before), *turns[1:]]
    return text, tuple(turns)


def _end(model: LoadedModel, messages: Sequence[Mapping[str, str]], text: str) -> int | None:
    """Where these first messages end in the text of all; None where the template makes something else of them."""
    try:
        first = chat_template.applied(model, messages, "a part of it", answer=False)
    except RequestError:
        return None
    return len(first) if text.startswith(first) else None


def _header(model: LoadedModel, message: Mapping[str, str]) -> str:
    """What the template puts before a message of this role that is not the first; empty where it allows none."""
    other = "user" if message["role"] == chat_template.ASSISTANT else chat_template.ASSISTANT
    again = [message, {"role": other, "content": "."}, message]
    try:
        short, whole = (
            chat_template.applied(model, part, "a part of it", answer=False) for part in (again[:2], again)
        )
    except RequestError:
        return ""
    if not whole.startswith(short):
        return ""
    return whole[len(short) :].partition(message["content"])[0]
