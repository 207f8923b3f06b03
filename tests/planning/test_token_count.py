"""How many tokens a text gives, whole or judged by its first part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alens import demo
from alens.job.progress import silent
from alens.model import models
from alens.planning import token_count
from alens.planning.budget import Budget
from alens.text import corpus as texts
from alens.text.text_tokens import TextTokens

CHARACTERS = 5000
"""Characters of a piece."""

ROWS = pq.read_table(demo.CORPUS).column("text").to_pylist()


@pytest.fixture(scope="module")
def tokenizer() -> tuple[Any, int | None]:
    return models.load_tokenizer(models.find("demo"))


NO_TIME, AMPLE_TIME = 1e-9, 1e9


def rows_of_pieces(count: int) -> int:
    """How many rows the first `count` pieces hold."""
    ends = np.cumsum([len(row.strip()) + 1 for row in ROWS])
    return int(np.searchsorted(ends, count * CHARACTERS))


@pytest.fixture
def few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces, of which 40 are read however long they take."""
    monkeypatch.setattr(texts, "PIECE_CHARACTERS", CHARACTERS)
    monkeypatch.setattr(token_count, "LEAST_PIECES", 40)


def estimate(corpus: texts.Corpus, tokenizer: Any, probe_s: float, enough: int | None = None) -> Any:
    return token_count.estimate(
        tokens_of(corpus, tokenizer), enough=enough, keep=1000, budget=Budget(probe_s), report=silent
    )


def tokens_of(corpus: texts.Corpus, tokenizer: Any) -> TextTokens:
    encoder, end = tokenizer
    return TextTokens(corpus=corpus, tokenizer=encoder, end_of_text=end, dtype="uint16")


def all_tokens(corpus: texts.Corpus, tokenizer: Any) -> Any:
    return np.concatenate([ids for _, ids in tokens_of(corpus, tokenizer).pieces()])


def as_parquet(folder: Path) -> Path:
    half = len(ROWS) // 2
    for number, rows in enumerate((ROWS[:half], ROWS[half:])):
        pq.write_table(pa.table({"text": rows}), folder / f"train-{number}.parquet", row_group_size=500)
    return folder


def as_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"n": n, "text": row if n % 7 else f"  {row} "}) for n, row in enumerate(ROWS)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder / "text.jsonl"


def as_txt(folder: Path) -> Path:
    (folder / "text.txt").write_text("\n".join(row + "\n" * (n % 5 == 0) for n, row in enumerate(ROWS)))
    return folder / "text.txt"


FORMS = pytest.mark.parametrize("form", [as_parquet, as_jsonl, as_txt])


@FORMS
def test_a_text_that_is_read_whole_is_exact(
    tmp_path: Path, tokenizer: Any, form: Callable[[Path], Path]
) -> None:
    corpus = texts.resolve(str(form(tmp_path)), texts.CorpusOptions())
    count, real = estimate(corpus, tokenizer, AMPLE_TIME), all_tokens(corpus, tokenizer)
    assert (count.exact, count.share_read, count.num_tokens) == (True, 1.0, len(real))
    assert count.tokens_read == count.num_tokens
    assert np.array_equal(count.first, real[:1000])
    assert count.tokens_a_second > 0


@FORMS
@pytest.mark.parametrize("options", [{}, {"row_documents": True}], ids=["one", "rows"])
@pytest.mark.usefixtures("few_pieces")
def test_the_first_part_tells_the_rest(
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    form: Callable[[Path], Path],
    options: dict[str, Any],
) -> None:
    if options:
        monkeypatch.setattr(token_count, "LEAST_PIECES", rows_of_pieces(40))  # a row is a piece
    corpus = texts.resolve(str(form(tmp_path)), texts.CorpusOptions(**options))
    real = all_tokens(corpus, tokenizer)
    count = estimate(corpus, tokenizer, NO_TIME)
    assert not count.exact
    assert count.share_read == pytest.approx(rows_of_pieces(40) / len(ROWS), rel=0.02)
    assert count.tokens_read < 0.2 * len(real)
    assert count.num_tokens == pytest.approx(len(real), rel=0.03)
    assert np.array_equal(count.first, real[:1000])


@pytest.mark.usefixtures("few_pieces")
def test_the_share_that_was_read_is_that_of_the_rows(tmp_path: Path, tokenizer: Any) -> None:
    corpus = texts.resolve(str(as_parquet(tmp_path)), texts.CorpusOptions())
    rows = estimate(corpus, tokenizer, NO_TIME).share_read * len(ROWS)
    assert 0 <= rows - rows_of_pieces(40) <= 1


@pytest.mark.usefixtures("few_pieces")
def test_rows_without_text_count_as_read(tmp_path: Path, tokenizer: Any) -> None:
    rows = [part for row in ROWS for part in (row, None, "  ")]
    pq.write_table(pa.table({"text": rows}), tmp_path / "text.parquet")
    corpus = texts.resolve(str(tmp_path / "text.parquet"), texts.CorpusOptions())
    count = estimate(corpus, tokenizer, NO_TIME)
    assert count.share_read == pytest.approx(rows_of_pieces(40) / len(ROWS), rel=1e-3)


@pytest.mark.usefixtures("few_pieces")
def test_enough_tokens_are_exact(tokenizer: Any) -> None:
    corpus = texts.resolve("demo", texts.CorpusOptions())
    count = estimate(corpus, tokenizer, NO_TIME, enough=4096)
    assert (count.exact, count.num_tokens >= 4096, len(count.first)) == (True, True, 1000)
    assert 0 < count.share_read < 1


@pytest.mark.usefixtures("few_pieces")
def test_an_estimate_is_no_more_than_what_is_wanted(tokenizer: Any) -> None:
    corpus = texts.resolve("demo", texts.CorpusOptions())
    count = estimate(corpus, tokenizer, NO_TIME, enough=100_000)
    assert (count.exact, count.num_tokens) == (False, 100_000)


@pytest.mark.usefixtures("few_pieces")
def test_no_more_is_tokenised_than_the_time_allows(tokenizer: Any) -> None:
    corpus = texts.resolve("demo", texts.CorpusOptions())
    few, whole = estimate(corpus, tokenizer, NO_TIME), estimate(corpus, tokenizer, AMPLE_TIME)
    first = " ".join(row.strip() for row in ROWS)[: 40 * CHARACTERS]
    assert few.tokens_read == len(tokenizer[0].encode(first, add_special_tokens=False).ids)
    assert few.tokens_read < whole.tokens_read == whole.num_tokens
