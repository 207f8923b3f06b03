"""Text files that people write by hand.

In: the path of a UTF-8 file. Out: its lines, or an error that says what is wrong with it.
"""

from pathlib import Path

from alens.errors import RequestError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without the byte order mark that some editors write.

    A line ends in \\n or \\r\\n; other separators of Unicode, such as U+2028, are part of the text, as they are in JSON.
    Raises `RequestError` for a file that cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error}") from None
