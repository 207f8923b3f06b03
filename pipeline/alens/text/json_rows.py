"""The rows of a .jsonl file, which has one object a line. The strings of a long line are read in parts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from alens.errors import RequestError
from alens.text.line_rows import FileLine, decoded, not_utf_8, read_line
from alens.text.long_json import LongString, read_long_object
from alens.text.text_columns import Row, TextColumns

ROWS_WITHOUT_COLUMN = 1000
"""A column that is absent from this many objects is refused as missing."""


def json_rows(path: Path, columns: TextColumns) -> Iterator[Row]:
    """The rows of a .jsonl file. Raises `RequestError` for a line that is not an object, or whose text is not text."""
    lacking = {column for column in columns if column is not None}
    names: dict[str, None] = {}
    objects = number = 0
    with path.open("rb") as file:
        while line := read_line(file, number + 1):
            number = line.number
            if line.is_whole and not line.content.strip():
                yield Row(None, None, line.size)
                continue
            body, size = _object(line, file, path)
            objects += 1
            if lacking:
                lacking -= body.keys()
                names |= dict.fromkeys(body)
                if objects == ROWS_WITHOUT_COLUMN:
                    columns.check([*names], path)
            yield from _rows(body, size, columns, line, path)
    if objects:
        columns.check([*names] if lacking else columns.wanted, path)


def _object(line: FileLine, file: IO[bytes], path: Path) -> tuple[dict[str, Any], int]:
    """The object in a line, and the number of bytes that the line takes in the file."""
    where = f"{path}:{line.number}"
    try:
        if line.is_whole:
            body, size = json.loads(decoded(line, path)), line.size
        else:
            body, size = read_long_object(file, line)
    except UnicodeDecodeError as error:
        raise not_utf_8(line, path, error) from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"cannot read text from {where}: it is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise RequestError(
            f"cannot read text from {where}: it holds {type(body).__name__}; .jsonl has an object a line"
        )
    return body, size


def _rows(body: dict[str, Any], size: int, columns: TextColumns, line: FileLine, path: Path) -> Iterator[Row]:
    """The row that an object gives, in parts where its text is long."""
    where = f"{path}:{line.number}"
    text = body.get(columns.text)
    document = None if columns.document is None else body.get(columns.document)
    try:
        if isinstance(document, LongString):
            document = "".join(part for part, _ in document.parts())
        if isinstance(text, LongString):
            starts = True
            for part, share in text.parts():
                yield Row(_checked(part, columns, where), document, size * share, starts)
                starts = False
            return
    except UnicodeDecodeError as error:
        raise not_utf_8(line, path, error) from None
    except ValueError as error:
        raise RequestError(f"cannot read text from {where}: it is not JSON ({error})") from None
    if text is not None and not isinstance(text, str):
        raise columns.not_text(text, where)
    if text and b"\\u" in line.content:
        _checked(text, columns, where)
    yield Row(text, document, size)


def _checked(text: str, columns: TextColumns, where: str) -> str:
    """`text`, where all of it is Unicode: a string of JSON may hold half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            f"cannot read text from {where}: column {columns.text!r} holds half of a surrogate pair, which is not text"
        ) from None
    return text
