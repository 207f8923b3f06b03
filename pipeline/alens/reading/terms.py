"""Terms -> the tokens that stand for them: a lens gives probabilities of tokens, not of words.

In: words, or a file with one on each line (blank lines and lines that begin with `#` are left out), and the model's
tokenizer. Out: `Term`s. A term has two forms, as it is and with a space before it, both as they stand within a text
(`model.within_text`); each form that is a single token counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.model.within_text import WithinText
from alens.reading.prompts import check_list
from alens.reading.text_file import read_lines

SHOWN = 5
"""Terms that a message names at most."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A word and its tokens."""

    text: str
    ids: tuple[int, ...]
    """The tokens that stand for it, `token` last."""

    @property
    def token(self) -> int:
        """The one token that stands for it where logits are read, which are not added up as probabilities are: that of
        the form with a space before it where this is a single token, else of the form as written."""
        return self.ids[-1]


def read_terms(path: Path) -> list[str]:
    """The terms of a file, each once. Raises `RequestError` when there are none."""
    terms = [line.strip() for line in read_lines(path) if line.strip() and not line.startswith("#")]
    if not terms:
        raise RequestError(f"{path} holds no term: write one on each line")
    return list(dict.fromkeys(terms))


def to_tokens(terms: Sequence[str], tokenizer: Any, *, first_token: bool = False) -> list[Term]:
    """The tokens of each term; a repeated term counts once.

    With `first_token`, the first token of a form that has several stands for the term, unless it is only space.
    Raises `RequestError` for a term that is empty, or that no token stands for.
    """
    check_list(terms, "terms")
    within = WithinText(tokenizer)
    listed, without_token = [], []
    terms = tuple(dict.fromkeys(terms))
    for text in terms:
        if not text.strip():
            raise RequestError("a term is empty: give a word")
        forms = [within.ids(form) for form in dict.fromkeys((text, f" {text.lstrip()}"))]
        forms.sort(key=lambda form: len(form) == 1)  # a single token last, and of two the one with a space
        firsts = dict.fromkeys(form[0] for form in forms if len(form) == 1 or (first_token and form))
        ids = tuple(token for token in firsts if within.text([token]).strip())
        if not ids:
            without_token.append(text)
        listed.append(Term(text=text, ids=ids))
    if without_token:
        shown = ", ".join(map(repr, without_token[:SHOWN])) + (", ..." if len(without_token) > SHOWN else "")
        raise RequestError(
            f"{len(without_token)} of {len(terms)} terms are not a single token of this model ({shown}): leave them out"
            + ("" if first_token else ", or take their first tokens with --first-token")
        )
    return listed
