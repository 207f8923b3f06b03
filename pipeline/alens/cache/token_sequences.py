"""A text -> sequences of tokens, permuted once, those of held-out documents last.

In: a `Corpus` and a tokenizer. Out: `tokens.npy`, (B, T) uint16 or uint32, in the order in which sequences will be run;
where documents are known also `documents.npy`, (B, T) uint32, the document of each token; and their `TokensRecord`.
There is no padding: end-of-text stands between documents, and what does not fill a shard is left out. Where sequences
begin with BOS, it counts as a token of the document that follows it. A corpus of any
size is streamed. `held_out_documents` decides what is taken, and `text.packing` makes sequences of it.
Shapes: B sequences, D documents, T tokens.
"""

import dataclasses
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.cache.held_out_documents import Division, divide
from alens.cache.passages import document_characters, plan_passages, read_passages
from alens.errors import RequestError, StoppedError
from alens.job.progress import Progress, Report, ShouldStop
from alens.store.arrays import DOCUMENT_DTYPE, token_dtype
from alens.store.durable import put_stream, sha256_of, write_errors
from alens.store.paths import StorePaths
from alens.store.schema import CacheSettings, Plan, TokensRecord
from alens.text.packing import Numbers, Side, TokenStream, TokenStreamWriter
from alens.text.text_tokens import TextTokens

SEQUENCES_A_WRITE = 1024


def write_tokens(
    paths: StorePaths,
    text: TextTokens,
    tokenizer_sha256: str,
    settings: CacheSettings,
    report: Report,
    should_stop: ShouldStop,
) -> TokensRecord:
    """Tokenise the text and write `tokens.npy` and, where documents are known, `documents.npy`.

    Raises `RequestError` when the text does not fill one shard, `StoppedError` when asked to stop.
    """
    known = text.corpus.record.knows_documents
    with write_errors(paths.root), tempfile.TemporaryFile(dir=paths.root) as raw:
        stream, division = _read(text, settings, raw, report, should_stop)
        check_fills_a_shard(text.corpus.record.id, len(stream.tokens_N), division, settings)
        report(Progress(stage="writing tokens"))
        ordered = _OrderedSequences(stream, division, settings, text.bos)
        put_stream(paths.tokens, _npy(text.dtype, ordered.shape, ordered.tokens()))
        if known:
            put_stream(paths.documents, _npy(DOCUMENT_DTYPE, ordered.shape, ordered.documents()))
    record = TokensRecord(
        sha256=sha256_of(paths.tokens),
        sequences=division.sequences,
        sequences_left_out=division.left_out,
        tokenizer_sha256=tokenizer_sha256,
        end_of_text=text.end_of_text,
        bos=text.bos,
        selection="spread" if division.spread else None,
    )
    if not known:
        return record
    taken, held_out = _documents_taken(paths.documents, division)
    return dataclasses.replace(
        record,
        documents_sha256=sha256_of(paths.documents),
        documents=len(division.held_out_D),
        documents_taken=taken,
        documents_held_out=held_out,
        held_out_sequences=division.held_out_sequences,
    )


def _read(
    text: TextTokens, settings: CacheSettings, raw: IO[bytes], report: Report, should_stop: ShouldStop
) -> tuple[TokenStream, Division]:
    """The tokens that sequences are made of, and how they are divided; only passages of a text far beyond `max_rows`."""
    known = text.corpus.record.knows_documents
    if settings.max_rows is not None:
        characters_D = document_characters(text.corpus, report, should_stop)
        plan = plan_passages(characters_D, settings, documents_known=known)
        if plan is not None:
            writer = TokenStreamWriter(raw, text.dtype)
            if read_passages(plan, text, settings.text_len, writer, report, should_stop):
                return writer.stream(), plan.division
            # A passage at the end had too little text: it has more characters to a token than any language.
            raw.seek(0)
            raw.truncate()
    stream, num_documents = _whole(text, raw, report, should_stop)
    return stream, divide(stream.lengths_of(num_documents), settings, documents_known=known)


def _whole(
    text: TextTokens, raw: IO[bytes], report: Report, should_stop: ShouldStop
) -> tuple[TokenStream, int]:
    """All tokens of the text, and how many documents it has: one where they are not known."""
    writer, document = TokenStreamWriter(raw, text.dtype), -1
    for starts_document, tokens_N in text.pieces():
        if should_stop():
            raise StoppedError("stopped while tokenising; nothing was written yet, run again to start over")
        if starts_document:
            document += 1
            writer.begin_run(document)
        writer.add(tokens_N)
        report(Progress(stage="tokenise", done=writer.num_tokens, total=None, unit="tokens"))
    return writer.stream(), document + 1


class _OrderedSequences:
    """The sequences in the order in which they will be run: each side permuted by itself, held-out documents last."""

    def __init__(
        self, stream: TokenStream, division: Division, settings: CacheSettings, bos: int | None
    ) -> None:
        self.shape = (division.sequences, settings.seq_len)
        self._bos, self._text_len = bos, settings.text_len
        held_out_R = division.held_out_D[stream.documents_R]
        counts = (division.train_sequences, division.held_out_sequences)
        self._sides: list[tuple[Side, Numbers]] = []
        for number, (runs_R, count) in enumerate(zip((~held_out_R, held_out_R), counts, strict=True)):
            whole = int(stream.lengths_R[runs_R].sum()) // settings.text_len
            chosen = np.arange(count, dtype=np.int64)
            if division.spread:
                chosen = randomness.spread(whole, count, settings.seed, randomness.SPREAD, number)
            order = randomness.permutation(count, settings.seed, randomness.SEQUENCE_ORDER, number)
            self._sides.append((Side(stream, runs_R), chosen[order]))

    def tokens(self) -> Iterator[npt.NDArray[Any]]:
        """The (B, T) tokens, some sequences at a time."""
        return (tokens_BT for tokens_BT, _ in self._blocks())

    def documents(self) -> Iterator[npt.NDArray[Any]]:
        """The (B, T) document of each token, some sequences at a time."""
        return (documents_BT for _, documents_BT in self._blocks())

    def _blocks(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        for side, numbers_B in self._sides:
            for start in range(0, len(numbers_B), SEQUENCES_A_WRITE):
                tokens_BT, documents_BT = side.sequences(
                    numbers_B[start : start + SEQUENCES_A_WRITE], self._text_len
                )
                if self._bos is not None:
                    tokens_BT = np.insert(tokens_BT, 0, self._bos, axis=1)
                    documents_BT = np.insert(documents_BT, 0, documents_BT[:, 0], axis=1)
                yield tokens_BT, documents_BT


def _documents_taken(path: Path, division: Division) -> tuple[int, int]:
    """How many documents have a token in some sequence, and how many of these are held out."""
    documents_BT = np.load(path, mmap_mode="r", allow_pickle=False)
    taken_D = np.zeros(len(division.held_out_D), dtype=np.bool_)
    for start in range(0, len(documents_BT), SEQUENCES_A_WRITE):
        taken_D[documents_BT[start : start + SEQUENCES_A_WRITE]] = True
    return int(taken_D.sum()), int((taken_D & division.held_out_D).sum())


def _npy(dtype: str, shape: tuple[int, ...], blocks: Iterator[npt.NDArray[Any]]) -> Iterator[bytes]:
    """The bytes of a .npy file."""
    yield _npy_header(np.dtype(dtype), shape)
    for block in blocks:
        yield block.tobytes()


def _npy_header(dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def file_bytes(plan: Plan) -> int:
    """The size of a plan's `tokens.npy`."""
    return _file_bytes(plan, token_dtype(plan.model.d_vocab))


def documents_bytes(plan: Plan) -> int:
    """The size of a plan's `documents.npy`; 0 where documents are not known."""
    return 0 if plan.tokens.documents_sha256 is None else _file_bytes(plan, DOCUMENT_DTYPE)


def _file_bytes(plan: Plan, dtype: str) -> int:
    shape = (plan.tokens.sequences, plan.settings.seq_len)
    return len(_npy_header(np.dtype(dtype), shape)) + np.dtype(dtype).itemsize * shape[0] * shape[1]


def check_fills_a_shard(corpus: str, num_tokens: int, division: Division, settings: CacheSettings) -> None:
    """Raises `RequestError` when a text of `num_tokens` tokens does not fill one shard."""
    if division.sequences:
        return
    if num_tokens == 0:
        raise RequestError(f"{corpus} has no text: it is empty, or every row of its text column is")
    raise RequestError(
        f"{corpus} gives {num_tokens:,} tokens, {num_tokens // settings.text_len} sequences of {settings.text_len}: "
        f"fewer than one shard of {settings.rows_per_shard:,} rows; take a smaller --rows-per-shard "
        f"(a multiple of {settings.seq_len})"
    )
