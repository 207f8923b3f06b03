"""Text files that people write by hand: lines, or what is wrong with the file."""

from pathlib import Path

from alens.errors import RequestError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file. Raises `RequestError` for a file that cannot be read as text."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error}") from None
