"""The rows of one file: exactly the file that is named, its lines, its columns, and what cannot be read."""

import codecs
import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alens.errors import RequestError
from alens.text.corpus import CorpusOptions, resolve
from alens.text.file_rows import KINDS, TABLES, read_rows, size_of
from alens.text.json_rows import ROWS_WITHOUT_COLUMN
from alens.text.text_columns import TextColumns

NAMES = [
    "book[1]", "book]1[", "a*", "?", "{a,b}", "**", "a::b", "zip::x", "hf:x", "memory:x", "a#b", "a%20b", "~", "$HOME",
    "-rf", " ", "it's \"quoted\"", "a\\b", "!a", "naïve ☃",
]  # fmt: skip


def write(path: Path, *rows: str) -> Path:
    """A file of any kind with these rows in a column `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        with path.open("wb") as file:  # pyarrow would follow an address in the name
            pq.write_table(pa.table({"text": list(rows)}), file)
    elif path.suffix == ".arrow":
        table = pa.table({"text": list(rows)})
        with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    else:
        lines = rows if path.suffix == ".txt" else [json.dumps({"text": row}) for row in rows]
        path.write_text("\n".join(lines))
    return path


def texts(path: Path, **columns: Any) -> list[str | None]:
    return [row.text for row in read_rows(path, TextColumns(**{"text": "text", **columns}))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_file_that_is_named_is_read_and_hashed(tmp_path: Path, name: str, kind: str) -> None:
    """There are files beside it that match its name as a pattern."""
    for other in ("book1", "ab", "a", "b", "x", "aXb", "hf"):
        write(tmp_path / "folder" / f"{other}{kind}", "wrong")
    path = write(tmp_path / "folder" / f"{name}{kind}", "right")
    corpus = resolve(str(path), CorpusOptions()).hashed()
    assert [piece.text for piece in corpus.pieces()] == ["right"]
    (record,) = corpus.record.files
    assert (record.name, record.sha256) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", [*NAMES, "hf:/owner/name", "http:/example.org", "a::b/c"])
def test_the_directory_that_is_named_is_read(tmp_path: Path, name: str) -> None:
    for other in ("book1", "ab", "a", "x"):
        write(tmp_path / other / "1.txt", "wrong")
    write(tmp_path / name / "1.txt", "right")
    (piece,) = resolve(str(tmp_path / name), CorpusOptions()).pieces()
    assert piece.text == "right"


@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_a_byte_order_mark_is_not_text(tmp_path: Path, kind: str) -> None:
    plain = write(tmp_path / f"plain{kind}", "one", "two \ufeff three", "\ufefffour")
    marked = tmp_path / f"marked{kind}"
    marked.write_bytes(codecs.BOM_UTF8 + plain.read_bytes())
    assert texts(marked) == texts(plain) == ["one", "two \ufeff three", "\ufefffour"]


def test_lines_of_txt_end_as_on_any_system(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("a\nb\r\nc\rd\r\re\x0bf\x85g\u2028h".encode())
    assert texts(path) == ["a", "b", "c", "d", "", "e\x0bf\x85g\u2028h"]


@given(st.lists(st.text(st.sampled_from("ab \r\n\x0b\u2028é")), max_size=8))
def test_lines_are_those_that_python_reads(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "text.txt"
    path.write_bytes("".join(parts).encode())
    with path.open(encoding="utf-8") as file:
        assert [text for text in texts(path) if text] == [line.rstrip("\n") for line in file if line != "\n"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sizes_of_rows_add_up_to_that_of_the_file(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a{kind}", "one", "two\rthree", "", "four")
    if kind not in TABLES:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes() + b"\n\n")
    assert sum(row.size for row in read_rows(path, TextColumns("text"))) == size_of(path)
    assert size_of(path) == (4 if kind in TABLES else path.stat().st_size)


def test_only_the_columns_that_are_wanted_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [{"text": None, "n": 1}] * 5 + [{"text": "a", "n": "x"}, {"n": [1], "book": "b", "text": "b"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert texts(path) == [None] * 5 + ["a", "b"]
    assert [row.document for row in read_rows(path, TextColumns("text", "book"))] == [None] * 6 + ["b"]


def test_a_column_may_be_null_for_megabytes_and_its_neighbours_of_any_type(tmp_path: Path) -> None:
    """Readers that guess the types of columns by the first megabytes refuse this."""
    path = tmp_path / "a.jsonl"
    empty = json.dumps({"text": None, "n": 1, "pad": "x" * 1000})
    others = [{"text": "a", "n": {"b": 1}}, {"text": "b", "n": ["c"], "pad": None}, {"text": "d", "n": "e"}]
    path.write_text(f"{empty}\n" * 12_000 + "\n".join(map(json.dumps, others)))
    assert path.stat().st_size > 12_000_000
    assert [text for text in texts(path) if text] == ["a", "b", "d"]


def test_other_columns_of_parquet_are_not_decoded(tmp_path: Path) -> None:
    """Beside the text is a column of pictures whose pages are destroyed."""
    rows = [f"row {number}" for number in range(100)]
    pictures = [bytes([number]) * 10_000 for number in range(100)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"picture": pictures, "text": rows, "book": ["b"] * 100}), path, use_dictionary=False
    )
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    start = column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    with pytest.raises(OSError, match="deserialize thrift"):
        pq.read_table(path)
    assert texts(path, document="book") == rows


def test_other_columns_of_a_saved_data_set_are_not_decoded(tmp_path: Path) -> None:
    rows = [f"row {number}" for number in range(10)]
    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["a", "b"]),
            "picture": datasets.Image(),
            "parts": datasets.List({"n": datasets.Value("int8")}),
            "text": datasets.Value("large_string"),
        }
    )
    columns = {"label": [0] * 10, "picture": [None] * 10, "parts": [[{"n": 1}]] * 10, "text": rows}
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "saved")
    (path,) = (tmp_path / "saved").glob("*.arrow")
    assert texts(path) == rows
    with pytest.raises(
        RequestError, match=r"has no column 'body': it has label, picture, parts, text; choose"
    ):
        texts(path, text="body")


def test_a_column_may_have_dots_and_neighbours_of_any_type(tmp_path: Path) -> None:
    table = pa.table({"a.b": ["right"], "a": [{"b": "wrong"}], "image": [b"\x00"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", text="a.b") == ["right"]


@pytest.mark.parametrize(
    "type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_strings_of_any_form_are_text(tmp_path: Path, type_: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", None]).cast(type_)}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["a", None]


def test_a_column_that_no_object_has_is_refused_before_the_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "a"}\n' * ROWS_WITHOUT_COLUMN + "not JSON")
    with pytest.raises(
        RequestError, match=r"a\.jsonl has no column 'text': it has body; choose with --text-"
    ):
        texts(path)
    path.write_text('{"body": "a"}\n' * (ROWS_WITHOUT_COLUMN - 1) + '{"text": "b"}\n' + '{"body": "a"}\n')
    assert [text for text in texts(path) if text] == ["b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "a"}\n{broken\n', r"a\.jsonl:2: it is not JSON \(Expecting property name"),
        (b'{"text": "a"}\n\n[1]\n', r"a\.jsonl:3: it holds list; \.jsonl has an object a line"),
        (b'{"text": "\\ud83d"}\n', r"a\.jsonl:1: column 'text' holds half of a surrogate pair"),
        (b'{"text": "caf\xe9"}\n', r"a\.jsonl: line 1 is not UTF-8"),
        (b'{"text": "a"}\n{"text": 5}\n', r"column 'text' of .*a\.jsonl:2 holds int, not text"),
        ('{"text": "a"}'.encode("utf-16"), r"a\.jsonl: line 1 is UTF-16; convert it to UTF-8"),
        (b"[" * 100_000, r"a\.jsonl:1: it is not JSON"),
    ],
)
def test_what_is_wrong_names_the_file_and_the_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(RequestError, match=says):
        texts(tmp_path / "a.jsonl")


def test_surrogate_pairs_are_one_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude00"}')
    assert texts(tmp_path / "a.jsonl") == ["\U0001f600"]


def test_a_row_of_parquet_that_is_not_text_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [None, 3]}), tmp_path / "a.parquet")
    with pytest.raises(RequestError, match=r"column 'text' of .*a\.parquet, row 2 holds int, not text"):
        texts(tmp_path / "a.parquet")


def test_a_damaged_page_of_parquet_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", *[f"row {number}" for number in range(2000)])
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(
        RequestError, match=r"cannot read text from .*a\.parquet: column 'text', row 1 or later: "
    ) as caught:
        texts(path)
    assert "\n" not in str(caught.value)


def test_text_has_no_other_columns_in_txt(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a\.txt has no column 'book': it has text"):
        texts(write(tmp_path / "a.txt", "one"), document="book")


def test_a_data_set_that_was_saved_to_disk_is_read(tmp_path: Path) -> None:
    """Its tables are read in order, in the column that is asked for, without what `map` left beside them."""
    rows = {"book": ["a", "a", "b", "b"], "body": ["one", None, "two", "three"], "n": [1, 2, 3, 4]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "cache-0123456789abcdef.arrow").write_bytes(b"not a table")
    corpus = resolve(str(tmp_path / "saved"), CorpusOptions(text_column="body", document_column="book"))
    assert [path.suffix for path in corpus.paths] == [".arrow", ".arrow"]
    assert [(piece.text, piece.starts_document) for piece in corpus.pieces()] == [
        ("one", True),
        ("two three", True),
    ]


@pytest.mark.parametrize(("split", "text"), [(None, "one"), ("test", "two"), ("all", "two one")])
def test_splits_that_were_saved_to_disk_are_splits(tmp_path: Path, split: str | None, text: str) -> None:
    parts = {
        name: datasets.Dataset.from_dict({"text": [row]}) for name, row in (("train", "one"), ("test", "two"))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    (piece,) = resolve(str(tmp_path / "saved"), CorpusOptions(split=split)).pieces()
    assert piece.text == text


def test_a_table_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", *[f"row {number}" for number in range(2000)])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        RequestError, match=r"cannot read text from .*a\.arrow: column 'text', row 1 or later: "
    ) as caught:
        texts(path)
    assert "\n" not in str(caught.value)


def test_a_row_of_arrow_that_is_not_text_is_named(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": [None, 3]}).save_to_disk(tmp_path)
    with pytest.raises(RequestError, match=r"column 'text' of .*\.arrow, row 2 holds int, not text"):
        texts(tmp_path / "data-00000-of-00001.arrow")
