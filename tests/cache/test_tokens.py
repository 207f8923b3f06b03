"""tokens.npy against the tokenizer, run once over the whole text."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from alens import demo, randomness
from alens.cache.text import CorpusOptions, resolve
from alens.cache.tokens import write_tokens
from alens.errors import RequestError, StoppedError
from alens.progress import never, silent
from alens.store.schema import CacheSettings, TokensRecord

SETTINGS = CacheSettings(seq_len=8, rows_per_shard=16)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(demo.MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows, so three pieces, with all that may stand at the edge of a row."""
    words = ["It was", "'t is", "- said he -", "42", '"No!"', "été", "x  y", "...", "end.", "\u2014", "Mr."]
    rows = [f"{words[i % 11]} {i} {words[(i * i) % 11]}" for i in range(600)]
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("\n".join(rows))
    return path


def tokens_of(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, settings: CacheSettings = SETTINGS, **options: Any
) -> tuple[np.ndarray, TokensRecord]:
    """The sequences in reading order, and the record."""
    found = resolve(str(corpus), CorpusOptions(**options))
    path = tmp_path / "tokens.npy"
    record = write_tokens(path, found, tokenizer, "hash", 0, settings, 4096, silent, never)
    stored = np.load(path, allow_pickle=False)
    assert [p.name for p in tmp_path.iterdir()] == ["tokens.npy"]
    assert stored.dtype == np.uint16
    assert stored.shape == (record.sequences, settings.seq_len)
    reading_order = np.empty_like(stored)
    reading_order[randomness.permutation(len(stored), settings.seed, randomness.SEQUENCE_ORDER)] = stored
    return reading_order, record


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_tokens_are_those_of_the_rows_joined_by_spaces(
    tmp_path: Path, book: Path, tokenizer: Tokenizer
) -> None:
    found, record = tokens_of(tmp_path, book, tokenizer)
    expected = encode(tokenizer, " ".join(book.read_text().split("\n")))
    kept = len(expected) // 16 * 16
    assert kept > 4096
    assert found.ravel().tolist() == expected[:kept]
    assert record.sequences_left_out == (len(expected) - kept) // 8


def test_end_of_text_stands_between_documents(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = tmp_path / "in" / "rows.txt"
    corpus.parent.mkdir()
    rows = [f"a row of text, number {i}." for i in range(40)]
    corpus.write_text("\n".join(rows))
    (tmp_path / "out").mkdir()
    found, record = tokens_of(tmp_path / "out", corpus, tokenizer, row_documents=True)
    expected: list[int] = []
    for row in rows:
        expected += [0, *encode(tokenizer, row)] if expected else encode(tokenizer, row)
    assert found.ravel().tolist() == expected[: found.size]
    assert (found == 0).sum() > 20
    assert record.end_of_text == 0


def test_end_of_text_stands_between_the_documents_of_a_column(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found, _ = tokens_of(tmp_path, demo.CORPUS, tokenizer, document_column="document")
    import pyarrow.parquet as pq

    table = pq.read_table(demo.CORPUS).to_pydict()
    documents: dict[int, list[str]] = {}
    for text, document in zip(table["text"], table["document"], strict=True):
        if text.strip():
            documents.setdefault(document, []).append(text.strip())
    expected: list[int] = []
    for rows in documents.values():
        expected += ([0] if expected else []) + encode(tokenizer, " ".join(rows))
        if len(expected) > found.size:
            break
    assert found.ravel().tolist() == expected[: found.size]


def test_without_documents_there_is_no_end_of_text_and_no_padding(
    tmp_path: Path, book: Path, tokenizer: Tokenizer
) -> None:
    found, _ = tokens_of(tmp_path, book, tokenizer)
    assert (found != 0).all()


@pytest.mark.parametrize(("max_rows", "sequences"), [(160, 20), (167, 20), (175, 20), (176, 22), (16, 2)])
def test_max_rows_keeps_whole_shards_from_the_start(
    tmp_path: Path, book: Path, tokenizer: Tokenizer, max_rows: int, sequences: int
) -> None:
    settings = dataclasses.replace(SETTINGS, max_rows=max_rows)
    found, record = tokens_of(tmp_path, book, tokenizer, settings)
    assert len(found) == sequences
    assert found.ravel().tolist() == encode(tokenizer, book.read_text().replace("\n", " "))[: found.size]
    assert record.sequences_left_out == 0


def test_sequences_are_permuted_by_the_seed(tmp_path: Path, book: Path, tokenizer: Tokenizer) -> None:
    orders = []
    for seed in (0, 0, 1):
        settings = dataclasses.replace(SETTINGS, seed=seed)
        in_reading_order, _ = tokens_of(tmp_path, book, tokenizer, settings)
        orders.append(np.load(tmp_path / "tokens.npy"))
        assert not np.array_equal(orders[-1], in_reading_order)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_tokens_do_not_depend_on_how_many_pieces_are_tokenised_at_once(
    tmp_path: Path, book: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, at_once = tokens_of(tmp_path, book, tokenizer)
    monkeypatch.setattr("alens.cache.tokens.PIECES_A_BATCH", 1)
    monkeypatch.setattr("alens.cache.tokens.SEQUENCES_A_WRITE", 3)
    _, one_by_one = tokens_of(tmp_path, book, tokenizer)
    assert at_once == one_by_one


@pytest.mark.parametrize(
    ("text", "settings", "says"),
    [
        ("three short words", {}, "tokens, 0 sequences of 8: fewer than one shard of 16 rows"),
        ("  \n\n", {}, "has no text"),
        ("word " * 100, {"max_rows": 15}, "max_rows is 15: fewer than one shard of 16 rows"),
    ],
)
def test_text_that_fills_no_shard_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, text: str, settings: dict[str, Any], says: str
) -> None:
    corpus = tmp_path / "short.txt"
    corpus.write_text(text)
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError, match=says):
        tokens_of(tmp_path / "out", corpus, tokenizer, dataclasses.replace(SETTINGS, **settings))
    assert not list((tmp_path / "out").iterdir())


def test_documents_need_an_end_of_text_token(tmp_path: Path, book: Path, tokenizer: Tokenizer) -> None:
    corpus = resolve(str(book), CorpusOptions(row_documents=True))
    with pytest.raises(RequestError, match="no end-of-text token"):
        write_tokens(tmp_path / "t.npy", corpus, tokenizer, "hash", None, SETTINGS, 4096, silent, never)


def test_stopping_while_tokenising_leaves_nothing(tmp_path: Path, book: Path, tokenizer: Tokenizer) -> None:
    corpus = resolve(str(book), CorpusOptions())
    with pytest.raises(StoppedError, match="nothing was written yet"):
        write_tokens(tmp_path / "t.npy", corpus, tokenizer, "hash", 0, SETTINGS, 4096, silent, lambda: True)
    assert not list(tmp_path.iterdir())
