import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alens.errors import RequestError
from alens.text import corpus as texts
from alens.text.corpus import CorpusOptions, Piece, resolve

ROWS = ["one two", "  three ", "", "four\tfive", "   ", "six"]
JOINED = "one two three four\tfive six"


def write(path: Path, rows: list[Any], **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": rows, **columns}), path)
    elif path.suffix == ".jsonl":
        lines = [{"text": row, **{k: v[i] for k, v in columns.items()}} for i, row in enumerate(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        path.write_text("".join(f"{row}\n" for row in rows))
    return path


def pieces(corpus: Path | str, **options: Any) -> list[Piece]:
    return list(resolve(str(corpus), CorpusOptions(**options)).pieces())


def stream(corpus: Path | str, **options: Any) -> str:
    return "".join(piece.text for piece in pieces(corpus, **options))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_rows_are_stripped_and_joined_and_empty_ones_dropped(tmp_path: Path, suffix: str) -> None:
    assert pieces(write(tmp_path / f"text{suffix}", ROWS)) == [Piece(JOINED, True)]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_row_of_null_is_an_empty_row(tmp_path: Path, suffix: str) -> None:
    assert stream(write(tmp_path / f"text{suffix}", ["one", None, "two"])) == "one two"


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "PIECE_CHARACTERS", 10)


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("rows", [["one two three", "", "four five"], ["one two", "three four five"]])
def test_pieces_are_of_one_length_whatever_the_rows(tmp_path: Path, rows: list[str]) -> None:
    assert pieces(write(tmp_path / "text.parquet", rows)) == [
        Piece("one two th", True),
        Piece("ree four f", False),
        Piece("ive", False),
    ]


def test_a_change_of_the_document_column_starts_a_document(tmp_path: Path) -> None:
    file = write(tmp_path / "text.jsonl", ["a", "b", "c", "", "d"], book=[1, 1, 2, 3, 1])
    assert pieces(file, document_column="book") == [Piece("a b", True), Piece("c", True), Piece("d", True)]


@pytest.mark.usefixtures("short_pieces")
def test_a_document_longer_than_a_piece_starts_once(tmp_path: Path) -> None:
    """A document of exactly one piece is followed by another document."""
    file = write(tmp_path / "text.parquet", ["abc def", "ghi", "0123", "45678", "y"], book=[1, 1, 2, 2, 3])
    assert pieces(file, document_column="book") == [
        Piece("abc def gh", True),
        Piece("i", False),
        Piece("0123 45678", True),
        Piece("y", True),
    ]


def test_each_row_may_be_a_document(tmp_path: Path) -> None:
    file = write(tmp_path / "text.txt", ["a", "", "a", "b"])
    assert pieces(file, row_documents=True) == [Piece("a", True), Piece("a", True), Piece("b", True)]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".txt"])
def test_files_of_a_directory_are_read_in_the_order_of_their_names(tmp_path: Path, suffix: str) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path / "corpus" / f"{name}{suffix}", [f"from {name}"])
    assert stream(tmp_path / "corpus") == "from a from b from c"


def test_splits_of_a_directory(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write(corpus / "train-00001-of-00002.parquet", ["second"])
    write(corpus / "train-00000-of-00002.parquet", ["first"])
    write(corpus / "valid-00000-of-00001.parquet", ["held out"])
    assert stream(corpus) == "first second"
    assert stream(corpus, split="validation") == "held out"
    with pytest.raises(
        RequestError, match=r"has no split 'test': it has train, validation; choose with --split"
    ):
        pieces(corpus, split="test")


def test_files_without_a_byte_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "corpus/a.jsonl", [])
    write(tmp_path / "corpus/b.jsonl", ["text"])
    assert stream(tmp_path / "corpus") == "text"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.txt", ""),
        ("empty.jsonl", ""),
        ("lines.jsonl", "\n\n"),
        ("blank.txt", "  \n\n"),
        ("null.jsonl", '{"text": null}\n'),
    ],
)
def test_empty_text_has_no_pieces(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert pieces(tmp_path / name) == []


def test_a_table_without_rows_has_no_pieces(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    assert pieces(tmp_path / "empty.parquet") == []


def test_the_record_has_the_hash_of_every_file_on_demand(tmp_path: Path) -> None:
    write(tmp_path / "corpus/a.txt", ["a"])
    write(tmp_path / "corpus/b.txt", ["b"])
    corpus = resolve(str(tmp_path / "corpus"), CorpusOptions())
    assert [(f.name, f.bytes, f.sha256) for f in corpus.record.files] == [
        ("a.txt", 2, None),
        ("b.txt", 2, None),
    ]
    record = corpus.hashed().record
    assert [(file.name, file.bytes) for file in record.files] == [("a.txt", 2), ("b.txt", 2)]
    assert record.files[0].sha256 == "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7"


def test_a_directory_is_read_as_its_names_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It reads text, a link to text elsewhere, and a linked folder, but not the files beside them."""
    corpus, far = tmp_path / "corpus", tmp_path / "far"
    for name in (
        "emma.txt",
        "night train.txt",
        "b[1].txt",
        ".hidden.txt",
        "README.txt",
        "old.zip",
        "emma.txt.gz",
    ):
        write(corpus / name, [f"from {name}"])
    write(far / "volume/v.txt", ["from far"])
    (corpus / "volume").symlink_to(far / "volume")
    (corpus / "emma again.txt").symlink_to("emma.txt")
    with caplog.at_level("INFO", "alens"):
        resolved = resolve(str(corpus), CorpusOptions())
    text = "".join(piece.text for piece in resolved.pieces())
    assert text == "from b[1].txt from emma.txt from night train.txt from far"
    assert caplog.messages == [
        f"left out of {corpus}: 1 .gz, 1 .zip, 1 README.txt, 1 hidden .txt, 1 second name of a file"
    ]
    assert [file.sha256 for file in resolved.hashed().record.files] == [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (
            corpus / "b[1].txt",
            corpus / "emma.txt",
            corpus / "night train.txt",
            far / "volume/v.txt",
        )
    ]


def test_nothing_is_said_where_nothing_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "corpus/a.txt", ["a"])
    with caplog.at_level("INFO", "alens"):
        resolve(str(tmp_path / "corpus"), CorpusOptions()).hashed()
        resolve("demo", CorpusOptions())
    assert caplog.messages == []


def test_a_text_that_is_read_twice_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, text in (("a", "same"), ("b", "other"), ("c", "same"), ("d", ""), ("e", "")):
        (tmp_path / f"{name}.txt").write_text(text)
    corpus = resolve(str(tmp_path), CorpusOptions()).hashed()
    assert "".join(piece.text for piece in corpus.pieces()) == "same other same"
    assert caplog.messages == [f"a.txt and c.txt of {tmp_path} hold the same bytes: that text is read twice"]


def test_a_clone_with_its_loading_script_is_read_or_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The script is not run."""
    for name in ("books.py", "dataset_infos.json", ".gitattributes"):
        write(tmp_path / "clone" / name, ["raise SystemExit"])
    (tmp_path / "clone/README.md").write_text("---\nlicense: unknown\n---\n# Books\n")
    with pytest.raises(
        RequestError, match=r"clone has no \.parquet.*1 \.json, 1 \.py.*script is not run: `--corpus-rev"
    ):
        resolve(str(tmp_path / "clone"), CorpusOptions())
    write(tmp_path / "clone/data/train-00000-of-00001.parquet", ["a", "b"])
    with caplog.at_level("INFO", "alens"):
        assert stream(tmp_path / "clone") == "a b"
    assert caplog.messages == [f"left out of {tmp_path / 'clone'}: 1 .json, 1 .py, 1 hidden"]


def test_the_card_of_a_directory_chooses_among_its_configurations(tmp_path: Path) -> None:
    write(tmp_path / "a/1.txt", ["a"])
    write(tmp_path / "b/train-00000-of-00001.txt", ["b"])
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: a/*\n- config_name: two\n  data_dir: b\n---\n"
    )
    assert stream(tmp_path, configuration="one") == "a"
    assert stream(tmp_path, configuration="two") == "b"
    assert resolve(str(tmp_path), CorpusOptions(configuration="two")).record.configuration == "two"
    with pytest.raises(RequestError, match="has the configurations one, two: choose with --corpus-config"):
        resolve(str(tmp_path), CorpusOptions())
    with pytest.raises(RequestError, match="is a single file, without configurations"):
        resolve(str(tmp_path / "a/1.txt"), CorpusOptions(configuration="one"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_missing_column_is_refused_and_the_columns_are_named(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"text{suffix}", ["a"], book=[1])
    with pytest.raises(RequestError, match=r"no column 'body': it has text, book; choose with --text-column"):
        pieces(file, text_column="body")
    with pytest.raises(
        RequestError, match=r"no column 'part': it has text, book; choose with --document-column"
    ):
        pieces(file, document_column="part")


def test_another_text_column_may_be_chosen(tmp_path: Path) -> None:
    assert stream(write(tmp_path / "a.jsonl", ["a"], body=["b"]), text_column="body") == "b"


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"column 'text' of .* holds int, not text"):
        pieces(write(tmp_path / "text.parquet", [1, 2]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.parquet", b"PAR1 and no more"),
        ("text.jsonl", b'{"text": "a"}\n{broken\n'),
        ("text.jsonl", b'{"text": "caf\xe9"}\n'),
        ("text.txt", b"caf\xe9 au lait\n"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match="cannot read text from"):
        pieces(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "has no .parquet, .arrow, .jsonl or .txt files"),
        (["notes.csv"], "has no .parquet, .arrow, .jsonl or .txt files (left out: 1 .csv)"),
        (["a.txt", "b.jsonl"], "mixes .jsonl, .txt files"),
    ],
)
def test_a_directory_without_one_kind_of_text_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(RequestError, match=re.escape(says)):
        pieces(tmp_path)


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("/no/such/file.txt", r"/no/such/file\.txt does not exist: give a file, a directory"),
        ("no-such-dataset", "no-such-dataset is not a file or directory here, the hub cache .* has no copy"),
    ],
)
def test_a_corpus_that_is_not_there_is_refused(corpus: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        resolve(corpus, CorpusOptions())


def test_two_ways_to_cut_documents_exclude_each_other() -> None:
    with pytest.raises(RequestError, match="exclude each other"):
        CorpusOptions(document_column="book", row_documents=True)
