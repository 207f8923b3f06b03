"""One file of a corpus -> its rows, in order.

In: the path of a .parquet, .arrow, .jsonl or .txt file, and the columns that are wanted. Out: `Row`s, streaming. A row
is a line of .txt (it ends in \\n, \\r\\n or \\r), an object of .jsonl (one a line), or a row of a table: .parquet, or
.arrow as `datasets` saves it. A byte order mark at the head of a file is not text. The file that is opened is the one
that is named: no pattern and no address in its name is followed (docs/decisions/0035-reading-text.md).
"""

import codecs
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alens.errors import RequestError

KINDS = (".parquet", ".arrow", ".jsonl", ".txt")
"""How the names of texts end, in small letters or capitals."""

TABLES = (".parquet", ".arrow")

ROWS_A_READ = 2048

ROWS_WITHOUT_COLUMN = 1000
"""Objects of a .jsonl file in which a column may be absent before it is refused as one that is not there."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Row(NamedTuple):
    """One row of a file."""

    text: str | None
    """None where the row has no text."""
    document: Any
    """The value of the document column; None without one."""
    size: int
    """Its share of `size_of` its file."""


class Columns(NamedTuple):
    """The columns that are read."""

    text: str
    document: str | None = None

    @property
    def wanted(self) -> list[str]:
        """Each column once."""
        return list(dict.fromkeys(name for name in self if name is not None))

    def check(self, names: list[str], path: Path) -> None:
        """Raises `RequestError` when one of them is not among `names`."""
        for column, option in ((self.text, "--text-column"), (self.document, "--document-column")):
            if column is not None and column not in names:
                raise RequestError(
                    f"{path} has no column {column!r}: it has {', '.join(names) or 'none'}; choose with {option}"
                )


def kind_of(path: Path) -> str | None:
    """The one of KINDS that a file is by its name, or None."""
    suffix = path.suffix.lower()
    return suffix if suffix in KINDS else None


def read_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a file of one of KINDS, in order.

    Raises `RequestError` for a file that cannot be read, that lacks a column, or whose text is not text.
    """
    readers: dict[str | None, Callable[[Path, Columns], Iterator[Row]]] = {
        ".parquet": _parquet_rows,
        ".arrow": _arrow_rows,
        ".jsonl": _json_rows,
        ".txt": _lines,
    }
    with _readable(path):
        if path.stat().st_size:  # a file without a byte is not a table, and has no rows
            yield from readers[kind_of(path)](path, columns)


def size_of(path: Path) -> int:
    """What the sizes of a file's rows add up to: bytes, or rows of a table."""
    import pyarrow.parquet as pq

    with _readable(path):
        size = path.stat().st_size
        if kind_of(path) not in TABLES or not size:
            return size
        if kind_of(path) == ".arrow":
            return len(_arrow_table(path))
        with path.open("rb") as file:
            return int(pq.ParquetFile(file).metadata.num_rows)


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        table = pq.ParquetFile(file)
        columns.check(table.schema_arrow.names, path)
        batches = table.iter_batches(ROWS_A_READ, columns=columns.wanted, use_threads=False)
        yield from _table_rows((batch.to_pydict() for batch in batches), columns, path)


def _arrow_rows(path: Path, columns: Columns) -> Iterator[Row]:
    table = _arrow_table(path)
    columns.check(table.column_names, path)
    batches = table.select_columns(columns.wanted).with_format(None).iter(ROWS_A_READ)
    yield from _table_rows(batches, columns, path)


def _arrow_table(path: Path) -> Any:
    """The table that `Dataset.save_to_disk` of `datasets` wrote, not read into memory."""
    import datasets

    return datasets.Dataset.from_file(str(path))


def _table_rows(batches: Iterable[Mapping[str, list[Any]]], columns: Columns, path: Path) -> Iterator[Row]:
    """The rows of a table, from batches of columns by name."""
    number = 0
    for batch in batches:
        texts = batch[columns.text]
        documents = [None] * len(texts) if columns.document is None else batch[columns.document]
        for text, document in zip(texts, documents, strict=True):
            number += 1
            if text is not None and not isinstance(text, str):
                raise _not_text(text, columns, f"{path}, row {number}")
            yield Row(text, document, 1)


def _lines(path: Path, columns: Columns) -> Iterator[Row]:
    columns.check(["text"], path)
    for text, size, _ in _decoded(path):
        first, *others = text.rstrip("\r\n").split("\r")  # what Python calls universal newlines
        yield Row(first, None, size)
        yield from (Row(other, None, 0) for other in others)


def _json_rows(path: Path, columns: Columns) -> Iterator[Row]:
    lacking = {column for column in columns if column is not None}
    names: dict[str, None] = {}
    objects = 0
    for line, size, number in _decoded(path):
        if not line.strip():
            yield Row(None, None, size)
            continue
        body = _object(line, path, number)
        objects += 1
        if lacking:
            lacking -= body.keys()
            names |= dict.fromkeys(body)
            if objects == ROWS_WITHOUT_COLUMN:
                columns.check([*names], path)
        text = body.get(columns.text)
        if text is not None and not isinstance(text, str):
            raise _not_text(text, columns, f"{path}:{number}")
        if text and "\\u" in line and not _is_unicode(text):
            raise RequestError(
                f"cannot read text from {path}:{number}: it holds half of a surrogate pair, which is not text"
            )
        yield Row(text, None if columns.document is None else body.get(columns.document), size)
    if objects:
        columns.check([*names] if lacking else [name for name in columns if name is not None], path)


def _decoded(path: Path) -> Iterator[tuple[str, int, int]]:
    """The lines of a UTF-8 file that end in \\n: text, bytes, and number from 1."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            size = len(line)
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                why = "UTF-16" if number == 1 and line.startswith(_UTF_16) else f"not UTF-8 ({error.reason})"
                raise RequestError(
                    f"cannot read text from {path}: line {number} is {why}; convert it to UTF-8"
                ) from None
            yield text, size, number


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"cannot read text from {path}:{number}: it is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise RequestError(
            f"cannot read text from {path}:{number}: it holds {type(body).__name__}; .jsonl has an object a line"
        )
    return body


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_text(value: Any, columns: Columns, where: str) -> RequestError:
    return RequestError(
        f"column {columns.text!r} of {where} holds {type(value).__name__}, not text: choose with --text-column"
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the system and pyarrow say of an unreadable file into one line."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"cannot read text from {path}: {why}") from error
