"""Prompts from a text: stretches of it, with a word put in.

In: documents of text and a seed. Out: stretches as tokens, which no two prompts share, and prompts that differ from
controls by one word some tokens before their end.
"""

import re
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from alens import demo

AFTER = 4
"""Tokens that follow the word."""


def lines(tokenizer: Any) -> list[list[int]]:
    """The rows of the demo's text, as tokens."""
    texts = [str(text) for text in pq.read_table(demo.CORPUS).column("text").to_pylist()]
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def stretches(lines: list[list[int]], number: int, length: int, seed: int) -> list[list[int]]:
    """`number` stretches of `length` tokens, of different lines, in a seeded order."""
    long = [ids[:length] for ids in lines if len(ids) >= length]
    order = np.random.default_rng(seed).permutation(len(long))[:number]
    return [long[place] for place in order]


def with_word(stretch: list[int], word: int) -> list[int]:
    """The stretch with the word `AFTER` tokens before its end."""
    return [*stretch[:-AFTER], word, *stretch[-AFTER:]]


def words(tokenizer: Any, number: int, seed: int) -> list[int]:
    """Tokens that are lower-case words of three letters or more with a space before them, in a seeded order."""
    matches = [
        token
        for token in range(tokenizer.get_vocab_size())
        if re.fullmatch(r" [a-z]{3,}", tokenizer.decode([token]))
    ]
    order = np.random.default_rng(seed).permutation(len(matches))[:number]
    return [matches[place] for place in order]
