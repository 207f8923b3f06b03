"""What a tokenizer puts before a text: its BOS token, and whether it adds it by itself.

In: a tokenizer of transformers. Out: a `Beginning`, and from it the token that sequences and prompts begin with, or None.
Gemma and Llama 2 were trained on texts that begin with a BOS token, and their tokenizers add it. GPT-2 was not.
"""

from dataclasses import dataclass
from typing import Any

from alens.errors import RequestError


@dataclass(frozen=True)
class Beginning:
    """The BOS token of a tokenizer."""

    token: int | None
    """None where it has none."""
    adds_it: bool
    """Whether the tokenizer puts it before a text by itself."""

    def chosen(self, bos: bool | None, tokenizer: str) -> int | None:
        """The token that sequences begin with where `bos` was asked for (None: as the tokenizer does by itself).

        Raises `RequestError`, which names the `tokenizer`, where it has no such token.
        """
        if bos and self.token is None:
            raise RequestError(f"--bos: {tokenizer} has no BOS token; leave --bos out")
        return self.token if (self.adds_it if bos is None else bos) else None


def beginning(fast: Any, text: str) -> Beginning:
    """The `Beginning` of a fast tokenizer of transformers, by what it makes of `text`."""
    token = fast.bos_token_id
    own, bare = (fast.backend_tokenizer.encode(text, add_special_tokens=added).ids for added in (True, False))
    return Beginning(token, token is not None and own[:1] == [token] and bare[:1] != [token])
