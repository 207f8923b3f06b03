"""Documents -> token rows: one stream of tokens, cut into sequences, permuted once.

In: a `Corpus` and a tokenizer. Out: `tokens.npy`, (B, T) uint16 or uint32, in the order the sequences
will be run, and its `TokensRecord`. No padding: end-of-text stands between documents, and what does not
fill a shard at the end is left out. Streams: two batches of text are in memory, whatever the corpus' size.
Shapes: B sequences, T tokens.
"""

import io
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.cache.text import Corpus, Piece
from alens.errors import RequestError, StoppedError
from alens.progress import Progress, Report, ShouldStop
from alens.store.arrays import token_dtype
from alens.store.durable import put_stream, sha256_of, write_errors
from alens.store.schema import CacheSettings, Plan, TokensRecord

PIECES_A_BATCH = 256
"""Pieces tokenised at once: a few megabytes of text, enough for every core."""

SEQUENCES_A_WRITE = 4096

Tokens = npt.NDArray[np.unsignedinteger[Any]]


def token_stream(corpus: Corpus, tokenizer: Any, end_of_text: int | None, dtype: str) -> Iterator[Tokens]:
    """The tokens of all pieces in order, with `end_of_text` before each document but the first.

    The tokenizer takes a batch on all cores (it is Rust, and leaves Python's lock alone) while a thread reads
    the next one.
    """
    pieces = corpus.pieces()
    first = True
    with ThreadPoolExecutor(1, "alens-read") as thread:
        reading = thread.submit(_take, pieces)
        while batch := reading.result():
            reading = thread.submit(_take, pieces)
            texts = [piece.text for piece in batch]
            for piece, encoding in zip(
                batch, tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True
            ):
                if piece.starts_document and not first:
                    if end_of_text is None:
                        raise RequestError(
                            "the tokenizer has no end-of-text token to put between documents: leave out --document-column and --row-documents"
                        )
                    yield np.array([end_of_text], dtype=dtype)
                first = False
                yield np.array(encoding.ids, dtype=dtype)


def _take(pieces: Iterator[Piece]) -> list[Piece]:
    return list(islice(pieces, PIECES_A_BATCH))


def write_tokens(
    path: Path,
    corpus: Corpus,
    tokenizer: Any,
    tokenizer_sha256: str,
    end_of_text: int | None,
    settings: CacheSettings,
    d_vocab: int,
    report: Report,
    should_stop: ShouldStop,
) -> TokensRecord:
    """Tokenise, cut, permute and write `tokens.npy`.

    Raises `RequestError` when the text does not fill one shard, `StoppedError` when asked to stop.
    """
    dtype, T = token_dtype(d_vocab), settings.seq_len
    wanted = None if settings.max_rows is None else settings.max_rows // T
    with write_errors(path.parent), tempfile.TemporaryFile(dir=path.parent) as raw:
        num_tokens = 0
        for part in token_stream(corpus, tokenizer, end_of_text, dtype):
            if should_stop():
                raise StoppedError(
                    "stopped while tokenising; nothing was written yet, run again to start over"
                )
            raw.write(part.tobytes())
            num_tokens += len(part)
            enough = None if wanted is None else wanted * T
            done = num_tokens if enough is None else min(num_tokens, enough)
            report(Progress(stage="tokenise", done=done, total=enough, unit="tokens"))
            if enough is not None and num_tokens >= enough:
                break
        kept, left_out = sequences_kept(corpus.record.id, num_tokens, settings)
        raw.flush()
        stream_BT = np.memmap(raw, dtype=dtype, mode="r", shape=(kept, T))
        order_B = randomness.permutation(kept, settings.seed, randomness.SEQUENCE_ORDER)
        put_stream(path, _npy(stream_BT, order_B))
    return TokensRecord(
        sha256=sha256_of(path),
        sequences=kept,
        sequences_left_out=left_out,
        tokenizer_sha256=tokenizer_sha256,
        end_of_text=end_of_text,
    )


def _npy(stream_BT: Tokens, order_B: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """The bytes of a .npy file with the sequences in `order_B`."""
    yield _npy_header(stream_BT.dtype, stream_BT.shape)
    for start in range(0, len(order_B), SEQUENCES_A_WRITE):
        yield stream_BT[order_B[start : start + SEQUENCES_A_WRITE]].tobytes()


def _npy_header(dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def file_bytes(plan: Plan) -> int:
    """The size of a plan's `tokens.npy`."""
    dtype = np.dtype(token_dtype(plan.model.d_vocab))
    shape = (plan.tokens.sequences, plan.settings.seq_len)
    return len(_npy_header(dtype, shape)) + dtype.itemsize * shape[0] * shape[1]


def sequences_kept(corpus: str, num_tokens: int, settings: CacheSettings) -> tuple[int, int]:
    """Sequences that fill shards, and those left out at the end, of a text of so many tokens.

    Raises `RequestError` when they fill none.
    """
    found, left_out = num_tokens // settings.seq_len, None
    if settings.max_rows is not None and found >= (wanted := settings.max_rows // settings.seq_len):
        found, left_out = wanted, 0  # what max_rows cuts off is not the end of the text
    kept = found // settings.sequences_per_shard * settings.sequences_per_shard
    if kept == 0:
        raise RequestError(_too_few(corpus, num_tokens, found, settings))
    return kept, found - kept if left_out is None else left_out


def _too_few(corpus: str, num_tokens: int, found: int, settings: CacheSettings) -> str:
    if num_tokens == 0:
        return f"{corpus} has no text: it is empty, or every row of its text column is"
    return (
        f"{corpus} gives {num_tokens:,} tokens, {found} sequences of {settings.seq_len}: fewer than one shard of "
        f"{settings.rows_per_shard:,} rows; take a smaller --rows-per-shard (a multiple of {settings.seq_len})"
    )
