"""Packs runs of tokens into whole sequences. Training and held-out text are packed apart, each as a `Side`.

In: a `TokenStream`: in a file all tokens of the text, or of the part that is used, and the document of each run of
tokens. Out: any sequences of a `Side`, with the document of each token. Memory: those sequences, and 16 bytes a run.
Shapes: N tokens of the stream, R runs, B sequences, T tokens.
"""

from array import array
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenStream:
    """Tokens in the order of the text. A run is a stretch of tokens of one document."""

    tokens_N: Tokens
    starts_R: Numbers
    """Where each run begins."""
    documents_R: Numbers
    """The document of each run, by its number in the text."""

    @property
    def lengths_R(self) -> Numbers:
        return np.diff(self.starts_R, append=len(self.tokens_N))

    def lengths_of(self, num_documents: int) -> Numbers:
        """(D,) how many tokens each document has."""
        lengths_D = np.zeros(num_documents, dtype=np.int64)
        np.add.at(lengths_D, self.documents_R, self.lengths_R)
        return lengths_D


class TokenStreamWriter:
    """Writes a stream of tokens into an open file."""

    def __init__(self, file: IO[bytes], dtype: str) -> None:
        self._file, self._dtype = file, dtype
        self._starts, self._documents = array("q"), array("q")
        self.num_tokens = 0

    def begin_run(self, document: int) -> None:
        self._starts.append(self.num_tokens)
        self._documents.append(document)

    def add(self, tokens_N: Tokens) -> None:
        self._file.write(tokens_N.tobytes())
        self.num_tokens += len(tokens_N)

    def stream(self) -> TokenStream:
        """The stream that was written, memory-mapped."""
        self._file.flush()
        tokens_N: Tokens = np.zeros(0, self._dtype)
        if self.num_tokens:
            tokens_N = np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self.num_tokens,))
        return TokenStream(
            tokens_N, np.array(self._starts, dtype=np.int64), np.array(self._documents, dtype=np.int64)
        )


class Side:
    """Some of the runs of a stream, joined end to end."""

    def __init__(self, stream: TokenStream, runs_R: npt.NDArray[np.bool_]) -> None:
        lengths = stream.lengths_R[runs_R]
        self._tokens_N, self._documents = stream.tokens_N, stream.documents_R[runs_R]
        self._in_stream = stream.starts_R[runs_R]
        self._in_side = np.cumsum(lengths) - lengths

    def sequences(self, numbers_B: Numbers, seq_len: int) -> tuple[Tokens, npt.NDArray[np.uint32]]:
        """(B, T) tokens of these sequences of the side, and (B, T) the document of each token."""
        place_BT = numbers_B[:, None] * seq_len + np.arange(seq_len)
        run_BT = np.searchsorted(self._in_side, place_BT, side="right") - 1
        tokens_BT = self._tokens_N[self._in_stream[run_BT] + place_BT - self._in_side[run_BT]]
        return tokens_BT, self._documents[run_BT].astype(np.uint32)
