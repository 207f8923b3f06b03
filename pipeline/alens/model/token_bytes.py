"""Token ids -> how many bytes of text each stands for, by which bits per byte are divided.

In: a `tokenizers` tokenizer, and the size of the model's vocabulary. Out: (V,) int64. A byte-level token has one byte
for each character. A SentencePiece token is its text with a space for `▁`, or one byte where it is called `<0x0A>`.
Special tokens, and ids without a token, stand for no text: 0 bytes. Other added tokens stand for their own text.
Shapes: V vocabulary.
"""

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
SPACE = "\u2581"
"""SentencePiece's sign for a space."""


def token_bytes(tokenizer: Any, d_vocab: int) -> npt.NDArray[np.int64]:
    """(V,) bytes of each token.

    Raises `RequestError` for a tokenizer of another kind, such as WordPiece, whose tokens do not spell the text.
    """
    described = json.loads(tokenizer.to_str())
    num_bytes = _counter(described.get("decoder"))
    bytes_V = np.zeros(d_vocab, dtype=np.int64)
    for token, number in tokenizer.get_vocab(with_added_tokens=False).items():
        bytes_V[number] = num_bytes(token)
    for added in described.get("added_tokens", ()):
        bytes_V[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    return bytes_V


def _counter(decoder: Any) -> Any:
    """The function that counts the bytes of a token, by the tokenizer's decoder."""
    parts = decoder["decoders"] if decoder and decoder["type"] == "Sequence" else [decoder or {}]
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" in kinds:
        return len
    spaces = [part for part in parts if part.get("type") == "Replace" and part.get("content") == " "]
    if "Metaspace" in kinds or any(part["pattern"].get("String") == SPACE for part in spaces):
        by_bytes = "ByteFallback" in kinds
        return lambda token: 1 if by_bytes and BYTE_TOKEN.fullmatch(token) else _plain(token)
    raise RequestError(
        f"its decoder ({', '.join(sorted(map(str, kinds)))}) is neither byte-level nor SentencePiece, "
        "so its tokens do not say how many bytes they are"
    )


def _plain(token: str) -> int:
    return len(token.replace(SPACE, " ").encode())
