"""The rows of one file of a corpus, in order.

In: the path of a .parquet, .arrow, .jsonl or .txt file, and the columns that are wanted. Out: `Row`s, streaming. A row
is a line of .txt (it ends in \\n, \\r\\n or \\r), an object of .jsonl (one a line), or a row of a table: .parquet, or
.arrow as `datasets` saves it. A byte order mark at the start of a file is not text. The file is opened under
exactly its name: a pattern or an address in the name is not followed (docs/decisions/0035-reading-text.md).
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from alens.errors import RequestError
from alens.text.json_rows import json_rows
from alens.text.line_rows import line_rows
from alens.text.table_rows import arrow_rows, parquet_rows, rows_of
from alens.text.text_columns import Row, TextColumns, said

KINDS = (".parquet", ".arrow", ".jsonl", ".txt")
"""How the names of text files end, in small letters or capitals."""

TABLES = (".parquet", ".arrow")


def kind_of(path: Path) -> str | None:
    """Which of KINDS a file is by its name; None for other files."""
    suffix = path.suffix.lower()
    return suffix if suffix in KINDS else None


def read_rows(path: Path, columns: TextColumns) -> Iterator[Row]:
    """The rows of a file of one of KINDS, in order.

    Raises `RequestError` for a file that cannot be read or lacks a column, or whose text column does not hold text.
    """
    readers: dict[str | None, Callable[[Path, TextColumns], Iterator[Row]]] = {
        ".parquet": parquet_rows,
        ".arrow": arrow_rows,
        ".jsonl": json_rows,
        ".txt": line_rows,
    }
    with _readable(path):
        if path.stat().st_size:  # an empty file is not a table, and has no rows
            yield from readers[kind_of(path)](path, columns)


def size_of(path: Path) -> int:
    """The sum of the sizes of a file's rows: bytes, or for a table its number of rows."""
    import pyarrow.parquet as pq

    with _readable(path):
        size = path.stat().st_size
        if kind_of(path) not in TABLES or not size:
            return size
        if kind_of(path) == ".arrow":
            return rows_of(path)
        with path.open("rb") as file:
            return int(pq.ParquetFile(file).metadata.num_rows)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the system and pyarrow say of an unreadable file into one line."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"cannot read text from {path}: {said(error)}") from error
