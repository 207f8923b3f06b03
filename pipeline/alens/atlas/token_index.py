"""Which heads write a token: an index over all tokens, as scripts that the index page loads when somebody asks.

In: the peaks of each head (`token_peaks`), and what it writes on the text's own next tokens. Out: files that each assign
their part to `window.alensAtlas`; a page that is opened from disk may load scripts, and nothing else. Values are
hundredths of a logit.
Shapes: N rows, K heads a token, V vocabulary, C tokens that come next in the text.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from alens.atlas.atlas_folder import TOKENS
from alens.atlas.head_pass import HeadWriting
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.store import durable

RAISING, LOWERING, COMING = 6, 4, 6
"""Heads that are kept for each token: by the most that they raise it, lower it, and raise it where it comes next."""

LEAST = 0.05
"""Logits: a peak below is not kept."""

LEAST_ROWS = 3
"""Rows before a token, for what heads write on it there."""

TOKENS_A_FILE = 1024

LEADING = "window.alensAtlas ??= { parts: {} };\n"
"""What each script begins with."""


class TokenIndex:
    """Collects heads one after the other; only the heads that stand first for a token are kept."""

    def __init__(self, vocabulary: int, next_ids_N: torch.Tensor) -> None:
        """`next_ids_N` are the text's next tokens of the rows, or NO_NEXT_TOKEN."""
        self._raised, self._lowered = _Best(vocabulary, RAISING), _Best(vocabulary, LOWERING)
        counts_V = torch.bincount(next_ids_N[next_ids_N != NO_NEXT_TOKEN], minlength=vocabulary)
        self._coming_C = (counts_V >= LEAST_ROWS).nonzero().flatten()
        self._counts_C = counts_V[self._coming_C]
        self._place_V = torch.full((vocabulary,), -1)
        self._place_V[self._coming_C] = torch.arange(len(self._coming_C))
        self._at_N = torch.where(next_ids_N == NO_NEXT_TOKEN, -1, self._place_V[next_ids_N.clamp_min(0)])
        self._best_coming = _Best(len(self._coming_C), COMING)

    def add(self, head: int, writing: HeadWriting) -> None:
        """What a head writes; `head` is its place among the heads of the atlas."""
        self._raised.add(head, writing.raised.values_V, writing.raised.rows_V)
        self._lowered.add(head, writing.lowered.values_V, writing.lowered.rows_V)
        known_N = self._at_N >= 0
        sums_C = torch.zeros(len(self._coming_C)).index_add_(0, self._at_N[known_N], writing.next_N[known_N])
        self._best_coming.add(head, sums_C / self._counts_C, self._counts_C)

    def write(self, folder: Path, texts: Sequence[str], row_text: Callable[[int], tuple[str, str]]) -> None:
        """Write the scripts: the texts of tokens, parts of `TOKENS_A_FILE` tokens each, and the rows that these name.

        `row_text` gives the text before a row's token, and the token.
        """
        raised, lowered, coming = (best.lists() for best in (self._raised, self._lowered, self._best_coming))
        coming_V = {token: coming[place] for place, token in enumerate(self._coming_C.tolist())}
        entries = [[raised[token], lowered[token], coming_V.get(token, [])] for token in range(len(texts))]
        _put(folder, "names", f"window.alensAtlas.names = {_json(texts)};")
        for start in range(0, len(texts), TOKENS_A_FILE):
            part = start // TOKENS_A_FILE
            some = entries[start : start + TOKENS_A_FILE]
            _put(folder, f"part-{part}", f"window.alensAtlas.parts[{part}] = {_json(some)};")
        named = sorted({row for token in entries for one in token[:2] for row in one[2::3]})
        texts_of_rows = {row: row_text(row) for row in named}
        _put(folder, "rows", f"window.alensAtlas.rows = {_json(texts_of_rows)};")


class _Best:
    """The heads with the largest values of each token, largest first, with a number beside each."""

    def __init__(self, vocabulary: int, keep: int) -> None:
        self._values_VK = torch.full((vocabulary, keep), -math.inf)
        self._heads_VK = torch.zeros(vocabulary, keep, dtype=torch.int32)
        self._beside_VK = torch.zeros(vocabulary, keep, dtype=torch.int64)

    def add(self, head: int, values_V: torch.Tensor, beside_V: torch.Tensor) -> None:
        better = (values_V > self._values_VK[:, -1]).nonzero().flatten()
        if not len(better):
            return
        own = torch.full_like(self._heads_VK[better, :1], head)
        values = torch.cat([self._values_VK[better], values_V[better, None]], dim=1)
        heads = torch.cat([self._heads_VK[better], own], dim=1)
        beside = torch.cat([self._beside_VK[better], beside_V[better, None]], dim=1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, :-1]
        self._values_VK[better] = values.gather(1, order)
        self._heads_VK[better] = heads.gather(1, order)
        self._beside_VK[better] = beside.gather(1, order)

    def lists(self) -> list[list[int]]:
        """For each token: head, hundredths of a logit, the number beside it; then the next head."""
        hundredths = (100 * self._values_VK.clamp_min(-1.0)).round().long().tolist()
        return [
            [
                number
                for head, value, beside in zip(heads, values, besides, strict=True)
                if value >= 100 * LEAST
                for number in (head, value, beside)
            ]
            for heads, values, besides in zip(
                self._heads_VK.tolist(), hundredths, self._beside_VK.tolist(), strict=True
            )
        ]


def _json(value: Any) -> str:
    """As a script may hold it: no text can end the script, or a line of it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _put(folder: Path, name: str, statement: str) -> None:
    durable.put(folder / TOKENS / f"{name}.js", f"{LEADING}{statement}\n".encode())
