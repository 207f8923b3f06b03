"""What somebody gave to a study in Python: made into what the study takes, or refused in one line.

In: a reader or lenses, terms or words, prompts or texts, settings. Out: a `LensedModel`, `Term`s, `Prompt`s, settings. A
list of words or texts can only mean one thing, and so can the directory of lenses; anything else is a `RequestError`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from alens.errors import RequestError
from alens.lens.lenses import Lenses
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.reading.terms import Term, to_tokens

GivenReader = LensedModel | Lenses | Path | str
"""A loaded reader, or lenses, whose model is then loaded."""

Settings = TypeVar("Settings")


def reader_of(reader: Any) -> LensedModel:
    """The reader, loaded if lenses were given. Raises `RequestError` for anything else."""
    if isinstance(reader, LensedModel):
        return reader
    if isinstance(reader, Lenses | Path | str):
        return LensedModel(reader)
    raise RequestError(
        f"reader is a {type(reader).__name__}: give HeadReader(lenses), or the directory of lenses"
    )


def terms_of(reader: LensedModel, terms: Any) -> list[Term]:
    """Terms as tokens. Raises `RequestError` for anything but a list of words or terms, and for a word without a token."""
    listed = _list(terms, "terms", "a list of words, or what reader.terms(...) gave", str | Term)
    words = [one for one in listed if isinstance(one, str)]
    if words and len(words) < len(listed):
        raise RequestError("terms holds words and terms: give either, not both")
    return to_tokens(words, reader.model.tokenizer) if words else listed


def prompts_of(prompts: Any, name: str, *, also: Any = Prompt) -> list[Any]:
    """Prompts; texts become prompts, and what is `also` taken stays. Raises `RequestError` for anything else."""
    listed = _list(prompts, name, "a list of texts or prompts", str | Prompt | also)
    return [Prompt(text=one) if isinstance(one, str) else one for one in listed]


def settings_of(settings: Any, kind: type[Settings]) -> Settings:
    """The settings. Raises `RequestError` for those of something else."""
    if not isinstance(settings, kind):
        raise RequestError(f"settings is a {type(settings).__name__}: give {kind.__name__}(...)")
    return settings


def _list(given: Any, name: str, wanted: str, kinds: Any) -> list[Any]:
    if isinstance(given, str):
        raise RequestError(f"{name} is the string {given[:40]!r}: give {wanted}")
    if isinstance(given, bytes | dict) or not isinstance(given, Iterable):
        raise RequestError(f"{name} is a {type(given).__name__}: give {wanted}")
    listed = list(given)
    for one in listed:
        if not isinstance(one, kinds):
            raise RequestError(f"{name} holds a {type(one).__name__}: give {wanted}")
    return listed
