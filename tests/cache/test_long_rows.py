"""Rows that are too long for memory are read in parts, which make up the same rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alens.errors import RequestError
from alens.text import line_rows as text_lines
from alens.text import long_json
from alens.text import table_rows as text_tables
from alens.text.corpus import CorpusOptions, Piece, resolve
from alens.text.file_rows import KINDS, TABLES, read_rows, size_of
from alens.text.text_columns import Row, TextColumns

LONG, PART, KEPT = 32, 11, 8
"""Lengths in bytes, for these tests."""


@pytest.fixture(autouse=True, scope="module")
def short_parts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for module in (text_lines, text_tables):
            patch.setattr(module, "LONG_BYTES", LONG)
        for module in (text_tables, long_json):
            patch.setattr(module, "PART_BYTES", PART)
        patch.setattr(text_tables, "BYTES_A_READ", LONG // 4)
        patch.setattr(long_json, "KEPT_BYTES", KEPT)
        yield


def write(path: Path, rows: list[str], types: Callable[[], pa.DataType] = pa.string) -> Path:
    if path.suffix in TABLES:
        table = pa.table({"other": list(range(len(rows))), "text": pa.array(rows).cast(types())})
        if path.suffix == ".parquet":
            pq.write_table(table, path, row_group_size=3)
        else:
            with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"n": n, "text": row, "m": [row]}) for n, row in enumerate(rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(rows))
    return path


def read(path: Path, **columns: str) -> list[Row]:
    return list(read_rows(path, TextColumns(**{"text": "text", **columns})))


def whole(rows: list[Row]) -> list[str]:
    """The rows that parts make up."""
    texts: list[str] = []
    for row in rows:
        if row.starts:
            texts.append("")
        texts[-1] += row.text or ""
    return texts


TEXTS = [
    "short",
    "naïve ☃ " * 20,
    "",
    "👩‍👩‍👧" * 30,
    "x" * LONG,
    "y" * (LONG - 1),
    'a "quoted" \\ \\" one' * 9,
    "end",
]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_long_row_are_the_row(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a{kind}", TEXTS)
    rows = read(path)
    assert whole(rows) == TEXTS
    assert len(rows) > 2 * len(TEXTS)
    assert max(len((row.text or "").encode()) for row in rows) < 2 * LONG
    assert sum(row.size for row in rows) == pytest.approx(size_of(path))
    assert max(row.size for row in rows) <= (1 if kind in TABLES else 4 * LONG)


@pytest.mark.parametrize(
    "types", [pa.large_string, pa.string_view, lambda: pa.dictionary(pa.int8(), pa.string())]
)
@pytest.mark.parametrize("kind", TABLES)
def test_long_strings_of_any_form_are_text(
    tmp_path: Path, kind: str, types: Callable[[], pa.DataType]
) -> None:
    assert whole(read(write(tmp_path / f"a{kind}", TEXTS, types))) == TEXTS


@given(rows=st.lists(st.text(st.sampled_from('ab \\"\u00e9\u2603\U0001f600\0\n'), max_size=60), min_size=1))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_string_of_json_is_read_in_parts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], ascii_only: bool
) -> None:
    """A long string beside other strings, which may hold anything, in a line of any length."""
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    objects = [
        {"a": row[::-1], "text": row, 'k"\\': {"text": [row, 1.5, None]}, "book": row[:20]} for row in rows
    ]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=ascii_only) for line in objects))
    parts = read(path, document="book")
    assert whole(parts) == rows
    assert [row.document for row in parts if row.starts] == [row[:20] for row in rows]
    assert sum(row.size for row in parts) == pytest.approx(path.stat().st_size)


@given(st.lists(st.text(st.sampled_from("abcdefgh \r\né☃"), max_size=99), max_size=4))
def test_lines_are_those_that_python_reads(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "text.txt"
    path.write_bytes("".join(parts).encode())
    with path.open(encoding="utf-8") as file:
        assert [row for row in whole(read(path)) if row] == [
            line.rstrip("\n") for line in file if line != "\n"
        ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "%s", oops}' % (b"x" * 99), r"a\.jsonl:2: it is not JSON \(Expecting property name"),
        (
            b'{"text": "%s\\ud83d%s"}' % (b"x" * 99, b"y" * 99),
            r"a\.jsonl:2: column 'text' holds half of a surrogate",
        ),
        (b'{"text": "%s\\ud83d"}' % (b"x" * 99), r"a\.jsonl:2: column 'text' holds half of a surrogate"),
        (b'{"text": "%s\\udc00"}' % (b"x" * 99), r"a\.jsonl:2: column 'text' holds half of a surrogate"),
        (b'{"text": "%s\\x"}' % (b"x" * 99), r"a\.jsonl:2: it is not JSON \(Invalid \\escape"),
        (b'{"text": "%s\\u12 "}' % (b"x" * 99), r"a\.jsonl:2: it is not JSON \(Invalid \\uXXXX escape"),
        (b'{"text": "%s\t"}' % (b"x" * 99), r"a\.jsonl:2: it is not JSON \(Invalid control character"),
        (b'{"text": "%s' % (b"x" * 99), r"a\.jsonl:2: it is not JSON \(Unterminated string"),
        (b'{"text": "%s\xe9"}' % (b"x" * 99), r"a\.jsonl: line 2 is not UTF-8"),
        (b'["%s"]' % (b"x" * 99), r"a\.jsonl:2: it holds list; \.jsonl has an object a line"),
        (b'{"text": ["%s"]}' % (b"x" * 99), r"column 'text' of .*a\.jsonl:2 holds list, not text"),
    ],
)
def test_what_is_wrong_with_a_long_line_names_the_file_and_the_line(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + content + b"\n")
    with pytest.raises(RequestError, match=says):
        read(tmp_path / "a.jsonl")


def test_a_long_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n" + b"x" * 99 + b"\xe9\n")
    with pytest.raises(RequestError, match=r"a\.txt: line 2 is not UTF-8"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("length", [3, 200])
@pytest.mark.parametrize("kind", TABLES)
def test_a_cell_that_is_not_utf_8_is_named(tmp_path: Path, kind: str, length: int) -> None:
    path = tmp_path / f"a{kind}"
    content = pa.array([b"fine", b"x" * length + b"\xe9"])
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 2, content.buffers())})
    if kind == ".parquet":
        pq.write_table(table, path)
    else:
        with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    with pytest.raises(RequestError, match=rf"a\{kind}: column 'text', row 2 is not UTF-8"):
        read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_row_is_stripped_and_joined_as_a_short_one(tmp_path: Path, kind: str) -> None:
    blank = " " * 99
    rows = [f"{blank}one{blank}two{blank}", blank, f"{'three ' * 30}{blank}"]
    corpus = resolve(str(write(tmp_path / f"a{kind}", rows)), CorpusOptions())
    text = f"one{blank}two {('three ' * 30).strip()}"
    assert list(corpus.pieces()) == [Piece(text, True)]
    rows_apart = resolve(str(tmp_path / f"a{kind}"), CorpusOptions(row_documents=True))
    assert list(rows_apart.pieces()) == [Piece(text[:105], True), Piece(text[106:], True)]
