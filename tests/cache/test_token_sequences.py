"""tokens.npy against the tokenizer, run once over the whole text."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from alens import demo, randomness
from alens.cache.token_sequences import write_tokens
from alens.errors import RequestError, StoppedError
from alens.job.progress import never, silent
from alens.store.paths import StorePaths
from alens.store.schema import CacheSettings, TokensRecord
from alens.text.corpus import PIECE_CHARACTERS, Corpus, CorpusOptions, resolve
from alens.text.text_tokens import TextTokens

from ..text.tokenizer_families import FAMILIES, rows

SETTINGS = CacheSettings(seq_len=8, rows_per_shard=16)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(demo.MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows, which make three pieces, with everything that may stand at the edge of a row."""
    words = ["It was", "'t is", "- said he -", "42", '"No!"', "été", "x  y", "...", "end.", "\u2014", "Mr."]
    rows = [f"{words[i % 11]} {i} {words[(i * i) % 11]}" for i in range(600)]
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows in which no eight consecutive tokens come twice."""
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text("\n".join(f"{i * 7919 % 100_003:05} and {i * 104_729 % 99_991:05}" for i in range(600)))
    return path


def text_tokens(corpus: Corpus, tokenizer: Tokenizer, end_of_text: int | None = 0) -> TextTokens:
    return TextTokens(corpus=corpus, tokenizer=tokenizer, end_of_text=end_of_text, dtype="uint16")


def tokens_of(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, settings: CacheSettings = SETTINGS, **options: Any
) -> tuple[np.ndarray, TokensRecord]:
    """The sequences in reading order, those of held-out documents last, and the record."""
    resolved = resolve(str(corpus), CorpusOptions(**options))
    paths = StorePaths(tmp_path)
    record = write_tokens(paths, text_tokens(resolved, tokenizer), "hash", settings, silent, never)
    stored = np.load(paths.tokens, allow_pickle=False)
    known = resolved.record.knows_documents
    assert {p.name for p in tmp_path.iterdir()} == {"tokens.npy", *(["documents.npy"] if known else [])}
    assert stored.dtype == np.uint16
    assert stored.shape == (record.sequences, settings.seq_len)
    return in_reading_order(stored, record, settings), record


def in_reading_order(stored: np.ndarray, record: TokensRecord, settings: CacheSettings) -> np.ndarray:
    held_out = record.held_out_sequences or 0
    train = len(stored) - held_out
    tokens_BT = np.empty_like(stored)
    tokens_BT[randomness.permutation(train, settings.seed, randomness.SEQUENCE_ORDER)] = stored[:train]
    order = randomness.permutation(held_out, settings.seed, randomness.SEQUENCE_ORDER, 1)
    tokens_BT[train + order] = stored[train:]
    return tokens_BT


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_tokens_are_those_of_the_rows_joined_by_spaces(
    tmp_path: Path, book: Path, tokenizer: Tokenizer
) -> None:
    tokens_BT, record = tokens_of(tmp_path, book, tokenizer)
    expected = encode(tokenizer, " ".join(book.read_text().split("\n")))
    kept = len(expected) // 16 * 16
    assert kept > 4096
    assert tokens_BT.ravel().tolist() == expected[:kept]
    assert record.sequences_left_out == (len(expected) - kept) // 8


@pytest.mark.parametrize("family", ["llama2", "t5", "gpt2_with_added_tokens"])
def test_a_long_document_has_the_tokens_of_the_whole(tmp_path: Path, family: str) -> None:
    """The tokens are those of the whole text, whatever the tokenizer does at the edges of its input."""
    tokenizer = FAMILIES[family]()
    corpus = tmp_path / "book.txt"
    corpus.write_text("\n".join(rows()[:700]))
    (tmp_path / "out").mkdir()
    tokens_BT, _ = tokens_of(tmp_path / "out", corpus, tokenizer)
    expected = encode(tokenizer, " ".join(row.strip() for row in rows()[:700]))
    assert len(corpus.read_text()) > 2 * PIECE_CHARACTERS
    assert tokens_BT.ravel().tolist() == expected[: tokens_BT.size]
    assert len(expected) - tokens_BT.size < 16


@pytest.mark.parametrize("family", ["llama2", "t5"])
def test_passages_have_the_tokens_that_they_have_in_their_document(tmp_path: Path, family: str) -> None:
    tokenizer = FAMILIES[family]()
    corpus = tmp_path / "book.txt"
    corpus.write_text("\n".join(rows()[:400]))
    (tmp_path / "out").mkdir()
    settings = dataclasses.replace(SETTINGS, seq_len=16, max_rows=320)
    tokens_BT, record = tokens_of(tmp_path / "out", corpus, tokenizer, settings)
    assert (len(tokens_BT), record.selection) == (20, "spread")
    whole = encode(tokenizer, " ".join(row.strip() for row in rows()[:400]))
    assert all(places_of(row.tolist(), whole) for row in tokens_BT)


def test_each_side_is_a_stream_of_its_own(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """End-of-text before each document but the first of the text, and no sequence with documents of both sides."""
    corpus = tmp_path / "in" / "rows.txt"
    corpus.parent.mkdir()
    rows = [f"a row of text, number {i}." for i in range(40)]
    corpus.write_text("\n".join(rows))
    (tmp_path / "out").mkdir()
    tokens_BT, record = tokens_of(tmp_path / "out", corpus, tokenizer, row_documents=True)
    stored = np.load(tmp_path / "out" / "documents.npy")
    documents = in_reading_order(stored, record, SETTINGS)
    assert record.documents == 40 and record.held_out_sequences
    train = record.sequences - record.held_out_sequences
    held_out = set(documents[train:].ravel().tolist())
    assert held_out.isdisjoint(documents[:train].ravel().tolist())
    assert record.documents_held_out == len(held_out) >= 2
    assert record.documents_taken == len(set(documents.ravel().tolist()))
    for side, here in ((tokens_BT[:train], documents[:train]), (tokens_BT[train:], documents[train:])):
        numbers = sorted(set(here.ravel().tolist()))
        expected = [
            (token, number)
            for number in numbers
            for token in [0] * (number > 0) + encode(tokenizer, rows[number])
        ]
        assert list(zip(side.ravel().tolist(), here.ravel().tolist(), strict=True)) == expected[: side.size]
    assert record.end_of_text == 0


def test_documents_of_a_column_are_whole_on_their_side(tmp_path: Path, tokenizer: Tokenizer) -> None:
    import pyarrow.parquet as pq

    tokens_BT, record = tokens_of(tmp_path, demo.CORPUS, tokenizer, document_column="document")
    documents = in_reading_order(np.load(tmp_path / "documents.npy"), record, SETTINGS)
    table = pq.read_table(demo.CORPUS).to_pydict()
    texts: dict[int, list[str]] = {}
    for text, document in zip(table["text"], table["document"], strict=True):
        if text.strip():
            texts.setdefault(document, []).append(text.strip())
    assert record.documents == len(texts)
    assert record.held_out_sequences == record.sequences // 2 // 10 * 2
    train = record.sequences - record.held_out_sequences
    for number in (0, 1, *documents[train:, 0][[0, 5]].tolist()):
        expected = [0] * (number > 0) + encode(tokenizer, " ".join(list(texts.values())[number]))
        assert tokens_BT[documents == number].tolist() == expected


def test_held_out_documents_are_drawn_with_the_seed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    held_out = []
    for seed in (0, 0, 1):
        settings = dataclasses.replace(SETTINGS, seed=seed)
        _, record = tokens_of(tmp_path, demo.CORPUS, tokenizer, settings, document_column="document")
        documents = np.load(tmp_path / "documents.npy")[-(record.held_out_sequences or 0) :]
        held_out.append(set(documents.ravel().tolist()))
    assert held_out[0] == held_out[1] != held_out[2]


def test_without_documents_there_is_no_end_of_text_and_no_padding(
    tmp_path: Path, book: Path, tokenizer: Tokenizer
) -> None:
    tokens_BT, _ = tokens_of(tmp_path, book, tokenizer)
    assert (tokens_BT != 0).all()


@pytest.mark.parametrize(("max_rows", "sequences"), [(160, 20), (167, 20), (175, 20), (176, 22), (16, 2)])
def test_max_rows_takes_whole_sequences_from_all_of_the_text(
    tmp_path: Path, numbers: Path, tokenizer: Tokenizer, max_rows: int, sequences: int
) -> None:
    settings = dataclasses.replace(SETTINGS, max_rows=max_rows)
    tokens_BT, record = tokens_of(tmp_path, numbers, tokenizer, settings)
    assert (len(tokens_BT), record.selection, record.sequences_left_out) == (sequences, "spread", 0)
    # A text this long is not tokenised whole: each sequence begins where a passage does.
    whole = encode(tokenizer, numbers.read_text().replace("\n", " "))
    starts = [place for row in tokens_BT for place in places_of(row.tolist(), whole)]
    assert len(starts) == sequences
    assert starts == sorted(starts)
    steps = np.diff([0, *starts, len(whole)])
    assert steps.min() >= 8 or len(starts) < 3
    assert steps.max() < 2.5 * len(whole) / sequences


def test_max_rows_of_a_text_that_is_little_longer_takes_sequences_of_it_whole(
    tmp_path: Path, numbers: Path, tokenizer: Tokenizer
) -> None:
    whole = encode(tokenizer, numbers.read_text().replace("\n", " "))
    settings = dataclasses.replace(SETTINGS, max_rows=len(whole) // 3)
    tokens_BT, record = tokens_of(tmp_path, numbers, tokenizer, settings)
    assert record.selection == "spread"
    starts = [place for row in tokens_BT for place in places_of(row.tolist(), whole)]
    assert {start % 8 for start in starts} == {0}
    assert set(np.diff(starts)) == {24} or set(np.diff(starts)) == {24, 32}


def test_max_rows_that_the_text_does_not_reach_takes_it_all(
    tmp_path: Path, book: Path, tokenizer: Tokenizer
) -> None:
    everything, record = tokens_of(tmp_path, book, tokenizer)
    more = dataclasses.replace(SETTINGS, max_rows=everything.size + 16)
    tokens_BT, again = tokens_of(tmp_path, book, tokenizer, more)
    assert np.array_equal(tokens_BT, everything)
    assert again == record


def places_of(part: list[int], whole: list[int]) -> list[int]:
    """Where `part` stands in `whole`."""
    return [start for start in range(len(whole) - len(part)) if whole[start : start + len(part)] == part]


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
    monkeypatch.setattr("alens.text.text_tokens.PIECES_A_BATCH", 1)
    monkeypatch.setattr("alens.cache.token_sequences.SEQUENCES_A_WRITE", 3)
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
        write_tokens(
            StorePaths(tmp_path), text_tokens(corpus, tokenizer, None), "hash", SETTINGS, silent, never
        )


def test_stopping_while_tokenising_leaves_nothing(tmp_path: Path, book: Path, tokenizer: Tokenizer) -> None:
    corpus = resolve(str(book), CorpusOptions())
    with pytest.raises(StoppedError, match="nothing was written yet"):
        write_tokens(
            StorePaths(tmp_path), text_tokens(corpus, tokenizer), "hash", SETTINGS, silent, lambda: True
        )
    assert not list(tmp_path.iterdir())
