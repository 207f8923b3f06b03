"""The rows of a table: .parquet, or .arrow as `datasets` saves it. Only the columns that are needed are decoded.

In: the path of a table. Out: `Row`s; those with long text come in parts. Memory: a few megabytes of rows, or one cell,
whatever the size of the table.
"""

import codecs
import contextlib
import mmap
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alens.errors import RequestError
from alens.text.text_columns import LONG_BYTES, PART_BYTES, Row, TextColumns, said

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_SIMPLE = ("string", "large_string")

ROWS_A_READ = 2048

BYTES_A_READ = 4 << 20
"""Rows with up to this many bytes of text are read at once."""


def parquet_rows(path: Path, columns: TextColumns) -> Iterator[Row]:
    """The rows of a .parquet file."""
    import pyarrow as pa

    yield from _parquet_rows(path, columns)
    pa.default_memory_pool().release_unused()  # a page may hold a thousand books


def _parquet_rows(path: Path, columns: TextColumns) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        # Read ahead, pyarrow would hold what it has read of all columns until the end of the file.
        table = pq.ParquetFile(file, pre_buffer=False, buffer_size=LONG_BYTES)
        columns.check(table.schema_arrow.names, path)
        groups = (
            table.iter_batches(
                _rows_a_read(table.metadata.row_group(group), columns.text),
                row_groups=[group],
                columns=columns.wanted,
                use_threads=False,
            )
            for group in range(table.num_row_groups)
        )
        for first, batch in _numbered(chain.from_iterable(groups), columns, path):
            yield from _rows(batch, columns, path, first)


def _rows_a_read(group: "pq.RowGroupMetaData", column: str) -> int:
    """How many rows of a row group are read at once, by the mean size of their text."""
    text_bytes = 1
    for number in range(group.num_columns):
        if group.column(number).path_in_schema == column:
            text_bytes = max(1, group.column(number).total_uncompressed_size)
    return int(max(1, min(ROWS_A_READ, BYTES_A_READ * group.num_rows // text_bytes)))


def arrow_rows(path: Path, columns: TextColumns) -> Iterator[Row]:
    """The rows of an .arrow file."""
    import pyarrow as pa

    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        buffer = pa.py_buffer(mapped)
        names = pa.ipc.open_stream(buffer).schema.names
        columns.check(names, path)
        wanted = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns.wanted])
        passed = 0
        for first, batch in _numbered(iter(pa.ipc.open_stream(buffer, options=wanted)), columns, path):
            for start in range(0, len(batch), ROWS_A_READ):
                for row in _rows(batch.slice(start, ROWS_A_READ), columns, path, first + start):
                    yield row
                    passed += len(row.text or "")
                    if passed > BYTES_A_READ:
                        mapped.madvise(mmap.MADV_DONTNEED)  # free what has been read
                        passed = 0


def rows_of(path: Path) -> int:
    """How many rows an .arrow file has."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as stream:
        return sum(len(batch) for batch in pa.ipc.open_stream(stream))


def _numbered(
    batches: "Iterator[pa.RecordBatch]", columns: TextColumns, path: Path
) -> "Iterator[tuple[int, pa.RecordBatch]]":
    """Each batch with the number of its first row. Raises `RequestError` where the table cannot be read on."""
    import pyarrow as pa

    first = 1
    while True:
        try:
            batch = next(batches, None)
        except (OSError, pa.ArrowException) as error:
            raise RequestError(
                f"cannot read text from {path}: column {columns.text!r}, row {first} or later: {said(error)}"
            ) from error
        if batch is None:
            return
        yield first, batch
        first += len(batch)


def _rows(batch: "pa.RecordBatch", columns: TextColumns, path: Path, first: int) -> Iterator[Row]:
    """The rows of a batch, whose first row has the number `first`."""
    texts = batch.column(columns.text)
    documents = [None] * len(batch)
    if columns.document is not None:
        documents = batch.column(columns.document).to_pylist()
    values: Iterable[Any] = texts
    if str(texts.type) in _SIMPLE and texts.nbytes <= 4 * BYTES_A_READ:
        with contextlib.suppress(UnicodeDecodeError):  # met again below, where the row is known
            values = texts.to_pylist()  # ten times as quick as one by one
    for number, (value, document) in enumerate(zip(values, documents, strict=True), start=first):
        if value is None or type(value) is str:
            yield Row(value, document, 1)
            continue
        try:
            yield from _parts(value, document, columns, path, number)
        except UnicodeDecodeError as error:
            raise RequestError(
                f"cannot read text from {path}: column {columns.text!r}, row {number} is not UTF-8 ({error.reason})"
            ) from None


def _parts(cell: Any, document: Any, columns: TextColumns, path: Path, number: int) -> Iterator[Row]:
    """The row that a cell of an Arrow table gives, in parts where its text is long."""
    import pyarrow as pa

    value = cell.value if isinstance(cell, pa.DictionaryScalar) else cell
    is_text = isinstance(value, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar)
    content = value.as_buffer() if is_text and value.is_valid else None
    if content is None or content.size <= LONG_BYTES:
        text = cell.as_py()
        if text is not None and not isinstance(text, str):
            raise columns.not_text(text, f"{path}, row {number}")
        yield Row(text, document, 1)
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, content.size, PART_BYTES):
        part = memoryview(content)[start : start + PART_BYTES]
        ends = start + PART_BYTES >= content.size
        yield Row(decoder.decode(part, final=ends), document, len(part) / content.size, start == 0)
