"""Tokens that the model has no embedding for.

In: token ids, the tokenizer that made them, the size of the model's vocabulary. Out: nothing, or one line. A tokenizer
may hold more tokens than the model, often one for padding that was added later: what counts is whether they occur.
"""

from collections.abc import Sequence
from typing import Any

from alens.errors import RequestError


def check_ids(ids: Sequence[int], tokenizer: Any, num_tokens: int, where: str) -> None:
    """Raises `RequestError` where an id of `where` ("the text") is beyond the `num_tokens` of the model."""
    largest = max(ids, default=-1)
    if largest >= num_tokens:
        raise RequestError(
            f"{where} has the token {tokenizer.id_to_token(largest)!r}, number {largest:,}, and the model's vocabulary ends "
            f"at {num_tokens - 1:,}: tokenizer and model do not belong together, or that token was added to the tokenizer alone"
        )
