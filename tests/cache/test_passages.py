"""Passages of a long text: where they are, and that nothing else is tokenised."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from alens import demo
from alens.cache import passages
from alens.cache.token_sequences import write_tokens
from alens.errors import StoppedError
from alens.job.progress import never, silent
from alens.store.paths import StorePaths
from alens.store.schema import CacheSettings, TokensRecord
from alens.text.corpus import CorpusOptions, resolve
from alens.text.text_tokens import TextTokens

T = 16
SETTINGS = CacheSettings(seq_len=T, rows_per_shard=4 * T, max_rows=40 * T)


class CountingTokenizer:
    """A tokenizer that remembers how much text it was given."""

    def __init__(self) -> None:
        self.inner = Tokenizer.from_file(str(demo.MODEL / "tokenizer.json"))
        self.characters = 0

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self.inner.encode_batch_fast(texts, **options)


def write_books(path: Path, lengths: list[int]) -> Path:
    """Documents with these numbers of rows; each row says its document and its number in it."""
    rows = [
        (f"book {d} says: this is line {i} of {n}.", f"book {d}")
        for d, n in enumerate(lengths)
        for i in range(n)
    ]
    pq.write_table(pa.table({"text": [r for r, _ in rows], "book": [b for _, b in rows]}), path)
    return path


def written(
    tmp_path: Path, corpus: Path, settings: CacheSettings = SETTINGS, **options: Any
) -> tuple[np.ndarray, np.ndarray, TokensRecord, CountingTokenizer]:
    paths, tokenizer = StorePaths(tmp_path / "out"), CountingTokenizer()
    paths.root.mkdir(exist_ok=True)
    resolved = resolve(str(corpus), CorpusOptions(**{"document_column": "book", **options}))
    text = TextTokens(corpus=resolved, tokenizer=tokenizer, end_of_text=0, dtype="uint16")
    record = write_tokens(paths, text, "hash", settings, silent, never)
    return np.load(paths.tokens), np.load(paths.documents), record, tokenizer


def test_every_document_gives_passages_in_proportion_to_its_length(tmp_path: Path) -> None:
    lengths = [400, 800, 100, 400, 1200, 300, 400, 400]
    corpus = write_books(tmp_path / "books.parquet", lengths)
    _, documents, record, tokenizer = written(tmp_path, corpus)
    assert (record.sequences, record.held_out_sequences, record.selection) == (40, 4, "spread")
    begins = np.bincount(documents[:36, 0], minlength=8)
    held_out = set(documents[36:].ravel().tolist())
    kept = [d for d in range(8) if d not in held_out]
    expected = np.array([lengths[d] for d in kept]) / sum(lengths[d] for d in kept) * 36
    assert np.abs(begins[kept] - expected).max() <= 1
    assert held_out.isdisjoint(documents[:36].ravel().tolist())
    assert tokenizer.characters < 0.6 * sum(len(r) + 1 for r in pq.read_table(corpus)["text"].to_pylist())


def test_a_passage_is_a_stretch_of_the_text_without_a_jump(tmp_path: Path) -> None:
    corpus = write_books(tmp_path / "books.parquet", [400] * 8)
    tokens, documents, _, tokenizer = written(tmp_path, corpus)
    table = pq.read_table(corpus).to_pydict()
    whole: dict[int, str] = {}
    for text, book in zip(table["text"], table["book"], strict=True):
        number = int(book.split()[1])
        whole[number] = f"{whole[number]} {text}" if number in whole else text
    for row, here in zip(tokens, documents, strict=True):
        for document in set(here.tolist()):
            ids = [token for token, d in zip(row.tolist(), here.tolist(), strict=True) if d == document]
            assert tokenizer.inner.decode([token for token in ids if token != 0]) in whole[document]
        assert (row == 0).sum() == len(set(here.tolist())) - 1


def test_of_more_documents_than_sequences_some_are_drawn(tmp_path: Path) -> None:
    corpus = write_books(tmp_path / "books.parquet", [12] * 400)
    _, documents, record, _ = written(tmp_path, corpus)
    assert record.documents == 400
    assert record.documents_taken == len(np.unique(documents))
    assert 40 <= len(np.unique(documents)) < 80
    assert np.diff(np.sort(documents[:36, 0])).max() < 40


def test_tiny_documents_stand_in_one_passage_together(tmp_path: Path) -> None:
    corpus = write_books(tmp_path / "books.parquet", [4000])
    tokens, documents, record, _ = written(
        tmp_path, corpus, CacheSettings(seq_len=64, rows_per_shard=128, max_rows=1280), document_column=None, row_documents=True
    )  # fmt: skip
    assert record.documents == 4000
    assert record.held_out_sequences == 2
    assert {len(set(row.tolist())) for row in documents} <= {3, 4, 5, 6, 7}
    held_out = set(documents[18:].ravel().tolist())
    assert held_out.isdisjoint(documents[:18].ravel().tolist())
    assert (tokens == 0).sum() == sum(len(set(row.tolist())) - 1 for row in documents)


def test_the_seed_moves_the_passages(tmp_path: Path) -> None:
    corpus = write_books(tmp_path / "books.parquet", [400] * 8)
    records = [
        written(tmp_path, corpus, CacheSettings(seq_len=T, rows_per_shard=4 * T, max_rows=40 * T, seed=seed))[
            2
        ]
        for seed in (0, 0, 1)
    ]
    assert records[0] == records[1]
    assert records[0].sha256 != records[2].sha256


def test_passages_of_one_row_are_as_those_of_many(tmp_path: Path) -> None:
    """A file may hold a whole book in one row."""
    rows = [f"line {i} of a book." for i in range(3000)]
    for name, text in (("many", rows), ("one", [" ".join(rows)])):
        pq.write_table(pa.table({"text": text, "book": ["b"] * len(text)}), tmp_path / f"{name}.parquet")
    results = [written(tmp_path, tmp_path / f"{name}.parquet") for name in ("many", "one")]
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][2].sha256 == results[1][2].sha256
    assert results[0][2].held_out_sequences == 0


def test_a_passage_of_text_almost_without_spaces_is_cut_before_the_next(tmp_path: Path) -> None:
    """It has the tokens that it has in the whole text, although Chinese has no spaces."""
    words = ["".join(f"{i}-line-{n}-of-a-book," for n in range(450)) for i in range(60)]
    pq.write_table(pa.table({"text": [" ".join(words)], "book": ["b"]}), tmp_path / "t.parquet")
    tokens, _, record, tokenizer = written(tmp_path, tmp_path / "t.parquet")
    assert (record.selection, len(tokens)) == ("spread", 40)
    assert min(map(len, words)) > 2 * passages.LONGEST_WORD
    assert tokenizer.characters < 40 * (passages.LONGEST_WORD + 10 * T)
    whole = np.array(tokenizer.inner.encode(" ".join(words), add_special_tokens=False).ids)
    windows = np.lib.stride_tricks.sliding_window_view(whole, T)
    assert all((windows == row).all(1).any() for row in tokens)


def test_a_long_row_may_be_stopped_in_its_midst(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("word " * 600_000)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    with pytest.raises(StoppedError, match="nothing was written yet"):
        passages.document_characters(resolve(str(tmp_path / "t.txt"), CorpusOptions()), silent, stop)


def test_text_with_many_characters_to_a_token_is_read_on(tmp_path: Path) -> None:
    rows = ["=" * 64 + f" {i}" for i in range(3000)]
    pq.write_table(pa.table({"text": rows, "book": ["b"] * 3000}), tmp_path / "t.parquet")
    tokens, _, record, _ = written(tmp_path, tmp_path / "t.parquet")
    assert record.selection == "spread" and len(tokens) == 40


def test_a_text_whose_end_is_too_short_is_tokenised_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_books(tmp_path / "books.parquet", [400] * 8)
    monkeypatch.setattr(passages, "ROOM", 4)  # so that the last passage runs into the end
    settings = CacheSettings(seq_len=T, rows_per_shard=4 * T, max_rows=1800 * T)
    _, _, record, tokenizer = written(tmp_path, corpus, settings)
    assert record.selection == "spread"
    assert record.sequences == 1800
    assert tokenizer.characters > sum(len(r) for r in pq.read_table(corpus)["text"].to_pylist())
