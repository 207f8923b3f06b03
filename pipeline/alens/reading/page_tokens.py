"""The table of tokens of a page while it grows, and numbers as a page holds them.

In: ids and log-probabilities of lists. Out: indices into one table, and whole numbers of thousandths.
Shapes: T rows, H heads, K entries of a list, C tokens, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from alens.reading.chat import Turn
from alens.reading.head_reader import HeadReader
from alens.reading.lensed_model import LensedModel
from alens.reading.page_data import Lists
from alens.reading.ranking import NO_MASS, term_log_probs
from alens.reading.terms import Term


class TokenTable:
    """The table of tokens while it grows."""

    def __init__(self, reader: HeadReader, terms: Sequence[Term]) -> None:
        self.reader, self.log_mean_V = reader, reader.log_mean_V
        mean_C = (
            [] if not terms or self.log_mean_V is None else term_log_probs(self.log_mean_V, terms).tolist()
        )
        self.rows: list[list[Any]] = [
            [term.text, _known(mean_C[i]) if mean_C else None] for i, term in enumerate(terms)
        ]
        self.where: dict[int, int] = {}

    def index(self, token: int) -> int:
        if token not in self.where:
            self.where[token] = len(self.rows)
            mean = None if self.log_mean_V is None else _known(float(self.log_mean_V[token]))
            self.rows.append([self.reader.text(token), mean])
        return self.where[token]

    def lists(self, ids_TK: torch.Tensor, log_probs_TK: torch.Tensor) -> Lists:
        counts_T = (log_probs_TK > -math.inf).sum(-1).tolist()
        numbers_TK = thousandths(log_probs_TK.clamp(min=NO_MASS))
        return [
            [
                number
                for token, value in zip(ids[:count], values, strict=False)
                for number in (self.index(token), value)
            ]
            for ids, values, count in zip(ids_TK.tolist(), numbers_TK, counts_T, strict=True)
        ]


def turns_by_token(reader: LensedModel, text: str, turns: Sequence[Turn], num_tokens: int) -> list[list[Any]]:
    """Name and position of the first token of each turn, among `num_tokens` tokens."""
    if not turns:
        return []
    offsets = reader.model.tokenizer.encode(text, add_special_tokens=False).offsets
    before = num_tokens - len(offsets)  # BOS, which is part of the first turn
    starts = [
        before + next((at for at, (_, end) in enumerate(offsets) if end > turn.start), len(offsets))
        for turn in turns
    ]
    return [[turn.name, start] for turn, start in zip(turns, [0, *starts[1:]], strict=True)]


def thousandths(values: torch.Tensor, step: int = 1) -> Any:
    """The numbers of a tensor in thousandths, in nested lists; whole multiples of `step`, which fewer bytes hold."""
    return ((1000 / step * values.double()).round().long() * step).tolist()


def _known(log_mean: float) -> int | None:
    return round(1000 * log_mean) if log_mean > NO_MASS else None


def columns(log_probs_HV: torch.Tensor, terms: Sequence[Term], tokens: Sequence[int]) -> torch.Tensor:
    """(H, C) the log-probability of each term and token."""
    chosen = [term_log_probs(log_probs_HV, terms)] if terms else []
    return torch.cat([*chosen, log_probs_HV[:, list(tokens)]], dim=1)


def placed(terms: Sequence[Term], tokens: Sequence[int]) -> tuple[list[Term], list[int]]:
    """Terms and tokens by their columns, where those of all terms stand before those of the tokens."""
    ends = [0]
    for term in terms:
        ends.append(ends[-1] + len(term.ids))
    moved = [
        replace(term, ids=tuple(range(start, end)))
        for term, start, end in zip(terms, ends, ends[1:], strict=False)
    ]
    return moved, list(range(ends[-1], ends[-1] + len(tokens)))
