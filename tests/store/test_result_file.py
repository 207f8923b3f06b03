"""Files of results: a path that cannot be written to is refused before the work, and a file is written whole."""

import os
from pathlib import Path

import pytest

from alens.errors import RequestError, RunError
from alens.store import result_file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.svg", r"a.svg: a map is written as .png or .html; name such a file"),
        ("no/a.png", r"no does not exist: make it"),
        ("taken.png", r"taken.png is a directory: name a file"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(RequestError, match=said):
        result_file.check(tmp_path / name, (".png", ".html"), "a map is")


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(RequestError, match="may not be written to"):
        result_file.check(tmp_path / "a.png", (".png",), "a map is")


def test_a_file_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before, and longer" + result_file.MARKS[".png"])
    result_file.check(path, (".png",), "a map is")
    result_file.write(path, b"after")
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*No such file") as error:
        result_file.write(tmp_path / "gone" / "a.png", b"x")
    assert "\n" not in str(error.value)
