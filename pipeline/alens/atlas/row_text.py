"""The text around a row of the cache, and the text of tokens.

In: tokens of the cache and the model's tokenizer. Out: strings, as they stand within a text.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.atlas.chosen_rows import ChosenRows
from alens.atlas.markup import lines_shown
from alens.model.within_text import WithinText
from alens.rows.held_out_rows import NO_NEXT_TOKEN

TOKENS_BEFORE, TOKENS_AFTER = 32, 8
SHORT_CHARACTERS = 60


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

    def next_ids(self) -> npt.NDArray[np.int64]:
        """(N,) the text's next token of each row, or NO_NEXT_TOKEN."""
        rows = self._rows
        tokens_BT, next_N = rows.cache.tokens, rows.position_N + 1
        inside_N = next_N < tokens_BT.shape[1]
        next_ids_N = np.full(len(rows), NO_NEXT_TOKEN, dtype=np.int64)
        next_ids_N[inside_N] = tokens_BT[rows.sequence_N[inside_N], next_N[inside_N]]
        return next_ids_N

    def short(self, row: int) -> tuple[str, str]:
        """The last words before a row's token, and the token."""
        before, token, _ = (lines_shown(text) for text in self.around(row))
        short = (
            before if len(before) <= SHORT_CHARACTERS else "…" + before[-SHORT_CHARACTERS:].partition(" ")[2]
        )
        return (f"{short} ", token[1:]) if token.startswith(" ") else (short, token)

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
