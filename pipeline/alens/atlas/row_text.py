"""The text around a row of the cache, and the text of tokens.

In: tokens of the cache and the model's tokenizer. Out: strings, as they stand within a text.
"""

from functools import lru_cache
from typing import Any

from alens.atlas.chosen_rows import ChosenRows
from alens.model.within_text import WithinText

TOKENS_BEFORE, TOKENS_AFTER = 32, 8


class RowText:
    """Text of rows and tokens."""

    def __init__(self, rows: ChosenRows, tokenizer: Any) -> None:
        self._rows, self._within = rows, WithinText(tokenizer)
        self._most_probable = rows.read("targets/ids")[:, 0]
        self.token = lru_cache(maxsize=None)(self._token)

    def around(self, row: int) -> tuple[str, str, str]:
        """The text before a row's token, the token, and the text after it."""
        tokens_T, at = self._rows.cache.tokens[self._rows.sequence_N[row]], int(self._rows.position_N[row])
        before = tokens_T[max(0, at - TOKENS_BEFORE) : at].tolist()
        after = tokens_T[at + 1 : at + 1 + TOKENS_AFTER].tolist()
        return self._text(before), self._text([int(tokens_T[at])]), self._text(after)

    def next_token(self, row: int) -> str | None:
        """The text's next token; None at the end of a sequence."""
        tokens_T, at = self._rows.cache.tokens[self._rows.sequence_N[row]], int(self._rows.position_N[row])
        return None if at + 1 >= len(tokens_T) else self.token(int(tokens_T[at + 1]))

    def model_token(self, row: int) -> str:
        """The model's most probable next token."""
        return self.token(int(self._most_probable[row]))

    def _token(self, token: int) -> str:
        return self._text([token])

    def _text(self, ids: list[int]) -> str:
        return self._within.text(ids) if ids else ""
