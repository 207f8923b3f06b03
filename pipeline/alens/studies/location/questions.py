"""Prompts with answers of their own: a target on each line, and perhaps a foil and a control prompt.

In: a `.jsonl` file with `prompt`, `target`, `foil`, `control` on each line. Out: `Question`s, and their answers as tokens.
What one line has, all have: a foil makes another score, and a control another test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.reading.prompts import Prompt, json_lines, prompt_from
from alens.reading.terms import to_tokens
from alens.statistics import permutation
from alens.studies.location.scored import FOIL, TARGET, OwnAnswers

CONTROL = "control"
"""The field that holds the control prompt of a line; in a file for a list of terms, the label of control prompts."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt and what is to follow it."""

    prompt: Prompt
    target: str
    foil: str | None = None
    """What is not to follow it."""
    control: str | None = None
    """The same prompt with another content: the same target and foil are read there."""

    @property
    def control_prompt(self) -> Prompt:
        """The control as a prompt."""
        assert self.control is not None
        return Prompt(text=self.control, source=f"{self.prompt.source}, control", role=self.prompt.role)


def read_questions(path: Path) -> list[Question] | None:
    """The questions of a file; None where no line has a target, so that it is a file of prompts for a list of terms.

    Raises `RequestError` for a file that cannot be read, and for lines that do not have the same fields.
    """
    if path.suffix != ".jsonl":
        return None
    lines = json_lines(path)
    if not any(TARGET in body for _, body in lines):
        return None
    questions = []
    for source, body in lines:
        fields = {name: _text(source, name, body[name]) for name in (TARGET, FOIL, CONTROL) if name in body}
        if TARGET not in fields:
            raise RequestError(
                f"{source} has no target, and other lines have: give each line its own, or take --terms and no targets"
            )
        prompt = prompt_from(source, body)
        if prompt.label == CONTROL:
            raise RequestError(
                f"{source} is labelled `control`: where prompts have targets, the control prompt of a line is its field `control`"
            )
        questions.append(Question(prompt=prompt, **fields))
    check(questions)
    return questions


def _text(source: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{source} has the {name} {value!r}: give some text, or leave the field out")
    return value


def check(questions: Sequence[Question]) -> None:
    """Raises `RequestError` where some have a foil or a control and others lack it, and for too few questions."""
    for name in (FOIL, CONTROL):
        lacking = [one for one in questions if getattr(one, name) is None]
        if 0 < len(lacking) < len(questions):
            raise RequestError(
                f"{lacking[0].prompt.source} has no {name}, and {len(questions) - len(lacking)} of {len(questions)} lines have: "
                "give each line one, or none"
            )
    if len(questions) < permutation.FEWEST:
        raise RequestError(
            f"{len(questions)} prompt is too few to tell a head from chance: give {permutation.FEWEST} or more"
        )
    if all(one.control == one.prompt.text for one in questions):
        raise RequestError("the controls are the prompts again: give other texts, or no controls")


def once(questions: Sequence[Question]) -> tuple[list[Question], list[str]]:
    """Each question once, and a note where some were repeated. Raises `RequestError` as `check` does."""
    first: dict[Any, Question] = {}
    for one in questions:
        first.setdefault((one.prompt.text, one.target, one.foil, one.control), one)
    repeated = len(questions) - len(first)
    check(list(first.values()))
    return list(first.values()), [f"repeated prompts, which count once: {repeated}"] if repeated else []


def answers_of(
    questions: Sequence[Question], tokenizer: Any, *, first_token: bool
) -> tuple[OwnAnswers, list[int]]:
    """The answers as tokens, and the targets alone: each the form with a space before it where that is a single token, else
    the form as written.

    Raises `RequestError` for a target or foil of several tokens, unless `first_token` takes the first, and for a foil that
    is its target's token.
    """
    given = [text for one in questions for text in (one.target, one.foil) if text is not None]
    try:
        listed = to_tokens(given, tokenizer, first_token=first_token)
    except RequestError as error:
        raise RequestError(f"targets and foils: {error}") from None
    token = {term.text: term.token for term in listed}
    targets = [token[one.target] for one in questions]
    if questions[0].foil is None:
        return OwnAnswers(targets, None), targets
    foils = [token[one.foil] for one in questions if one.foil is not None]
    for one, target, foil in zip(questions, targets, foils, strict=True):
        if target == foil:
            raise RequestError(
                f"{one.prompt.source}: the target {one.target!r} and the foil {one.foil!r} are the same token"
                f"{' first' if first_token else ''}: give another foil"
            )
    return OwnAnswers(targets, foils), targets
