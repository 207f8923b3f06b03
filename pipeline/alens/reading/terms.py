"""Terms -> the tokens that stand for them, because a lens gives the probability of the next *token*.

In: words, or a file of them (one a line; blank lines and lines that begin with `#` are left out), and the model's
tokenizer. Out: `Term`s. A term is written in two forms, as it is and with a space before it, both within a text
(`within_text`); each form that is a single token counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.model.within_text import WithinText
from alens.reading.text_file import read_lines

SHOWN = 5
"""Terms that a message names."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A word and its tokens."""

    text: str
    ids: tuple[int, ...]


def read_terms(path: Path) -> list[str]:
    """The lines of a file of terms. Raises `RequestError` when there are none."""
    found = [line.strip() for line in read_lines(path) if line.strip() and not line.startswith("#")]
    if not found:
        raise RequestError(f"{path} holds no term: write one a line")
    return list(dict.fromkeys(found))


def to_tokens(terms: Sequence[str], tokenizer: Any, *, first_token: bool = False) -> list[Term]:
    """The tokens of each term, which counts once; with `first_token` a term of several tokens counts by the first one of each form.

    A first token that says nothing but space stands for no term.
    Raises `RequestError` for a term that no token stands for, or an empty one.
    """
    within = WithinText(tokenizer)
    listed, lacking = [], []
    terms = tuple(dict.fromkeys(terms))
    for text in terms:
        if not text.strip():
            raise RequestError("a term is empty: give a word")
        forms = [within.ids(form) for form in dict.fromkeys((text, f" {text.lstrip()}"))]
        firsts = dict.fromkeys(form[0] for form in forms if len(form) == 1 or (first_token and form))
        ids = tuple(token for token in firsts if within.text([token]).strip())
        if not ids:
            lacking.append(text)
        listed.append(Term(text=text, ids=ids))
    if lacking:
        shown = ", ".join(map(repr, lacking[:SHOWN])) + (", ..." if len(lacking) > SHOWN else "")
        raise RequestError(
            f"{len(lacking)} of {len(terms)} terms are no single token of this model ({shown}): leave them out"
            + ("" if first_token else ", or take their first tokens with --first-token")
        )
    return listed
