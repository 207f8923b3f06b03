"""What a study asks, ready to run: prompts and controls as tokens, and what is scored on them.

In: a list of terms with prompts and controls, or `Question`s, whose targets and controls are their own. Out:
`AskedPrompts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt, tokens_of
from alens.reading.terms import Term
from alens.studies.location.prompt_groups import groups
from alens.studies.location.questions import Question, answers_of, once
from alens.studies.location.scored import Scored, TermList
from alens.studies.location.settings import LocateSettings


@dataclass(frozen=True, kw_only=True)
class AskedPrompts:
    """Prompts, controls and what is scored."""

    terms: list[str]
    """The list of terms; the targets, each once, where prompts have their own."""
    own_answers: bool
    """Whether each prompt has its own."""
    scored: Scored
    ids: list[list[int]]
    control_ids: list[list[int]] | None
    with_terms: int
    """Prompts and controls that hold a term, or their own target."""
    settings: LocateSettings
    """`paired` where the controls belong to the prompts."""
    notes: list[str]

    @property
    def num_controls(self) -> int | None:
        """How many controls there are; None without them."""
        return None if self.control_ids is None else len(self.control_ids)

    @property
    def alternative(self) -> str:
        """Terms without controls are only tested for being raised: any sentence lowers most terms. The answers of prompts may
        be raised or lowered."""
        return "greater" if self.control_ids is None and not self.own_answers else self.settings.alternative


def asked_prompts(
    reader: LensedModel,
    terms: Sequence[Term] | None,
    prompts: Sequence[Prompt] | Sequence[Question],
    controls: Sequence[Prompt] | None,
    settings: LocateSettings,
    *,
    first_token: bool,
) -> AskedPrompts:
    """Check and tokenise. Raises `RequestError` for what cannot be asked together, or cannot be read."""
    questions = [one for one in prompts if isinstance(one, Question)]
    if not questions:
        return _terms(reader, terms or (), cast(Sequence[Prompt], prompts), controls, settings)
    check_questions(has_terms=bool(terms), has_controls=bool(controls), settings=settings)
    if len(questions) < len(prompts):
        raise RequestError(
            "some prompts have targets of their own and some do not: give all or none a target"
        )
    return _questions(reader, questions, settings, first_token=first_token)


def check_questions(*, has_terms: bool, has_controls: bool, settings: LocateSettings) -> None:
    """Raises `RequestError` for what prompts with targets of their own do not go with."""
    if has_terms:
        raise RequestError(
            "the prompts have targets of their own: leave the terms out, or take prompts without targets"
        )
    if has_controls:
        raise RequestError(
            "the prompts have targets of their own: the control prompt of a line is its field `control`, leave other controls out"
        )
    if settings.position != "last":
        raise RequestError("a target follows the last token of its prompt: take the position `last`")


def _terms(
    reader: LensedModel,
    terms: Sequence[Term],
    prompts: Sequence[Prompt],
    controls: Sequence[Prompt] | None,
    settings: LocateSettings,
) -> AskedPrompts:
    prompts, controls, notes = groups(prompts, controls, settings)
    if not terms:
        raise RequestError("no term was given: give one or more, or prompts with targets of their own")
    ids = [tokens_of(reader, prompt) for prompt in prompts]
    control_ids = None if controls is None else [tokens_of(reader, prompt) for prompt in controls]
    tokens = {token for term in terms for token in term.ids}
    return AskedPrompts(
        terms=[term.text for term in terms],
        own_answers=False,
        scored=TermList(terms),
        ids=ids,
        control_ids=control_ids,
        with_terms=sum(not tokens.isdisjoint(prompt) for prompt in [*ids, *(control_ids or [])]),
        settings=settings,
        notes=notes,
    )


def _questions(
    reader: LensedModel, questions: Sequence[Question], settings: LocateSettings, *, first_token: bool
) -> AskedPrompts:
    questions, notes = once(questions)
    scored, targets = answers_of(questions, reader.model.tokenizer, first_token=first_token)
    ids = [tokens_of(reader, one.prompt) for one in questions]
    control_ids = None
    if questions[0].control is not None:
        control_ids = [tokens_of(reader, one.control_prompt) for one in questions]
    return AskedPrompts(
        terms=list(dict.fromkeys(one.target for one in questions)),
        own_answers=True,
        scored=scored,
        ids=ids,
        control_ids=control_ids,
        with_terms=sum(
            target in prompt
            for group in (ids, control_ids or [])
            for target, prompt in zip(targets, group, strict=False)
        ),
        settings=replace(settings, paired=control_ids is not None),
        notes=notes,
    )
