"""The files below a directory: links, rings of links, broken links, and what cannot be read."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alens.errors import RequestError
from alens.text.listing import Entry, list_files


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)


def names(folder: Path) -> list[str]:
    return [entry.name for entry in list_files(folder)]


def test_files_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b.txt", "a/z.txt", "a.txt", "a/b/c.txt", "a b.txt")))
    assert names(tmp_path) == ["a b.txt", "a.txt", "a/b/c.txt", "a/z.txt", "b.txt"]


def test_hidden_folders_are_not_entered_and_hidden_files_are_listed(tmp_path: Path) -> None:
    touch(
        *(tmp_path / name for name in (".git/a.txt", "__MACOSX/b.txt", "x/.cache/c.txt", ".d.txt", "e.txt"))
    )
    assert names(tmp_path) == [".d.txt", "e.txt"]


def test_a_linked_folder_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.txt", tmp_path / "far/deep/b.txt")
    (tmp_path / "in/first").symlink_to(tmp_path / "far")
    (tmp_path / "in/second").symlink_to(tmp_path / "far/deep")
    assert names(tmp_path / "in") == ["a.txt", "first/deep/b.txt"]


def test_a_link_to_a_folder_of_its_own_changes_no_name(tmp_path: Path) -> None:
    touch(tmp_path / "volume/a.txt")
    (tmp_path / "also").symlink_to("volume")
    assert names(tmp_path) == ["volume/a.txt"]


def test_rings_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path / "in/a/1.txt", tmp_path / "in/b/2.txt", tmp_path / "outside.txt")
    (tmp_path / "in/a/b").symlink_to(tmp_path / "in/b")
    (tmp_path / "in/b/a").symlink_to(tmp_path / "in/a")
    (tmp_path / "in/self").symlink_to(tmp_path / "in")
    (tmp_path / "in/up").symlink_to(tmp_path)
    entries = list_files(tmp_path / "in")
    assert [entry.name for entry in entries] == ["a/1.txt", "b/2.txt", "up/"]
    assert not entries[-1].is_file


def test_two_names_of_a_file_have_one_identity(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.txt", tmp_path / "far.txt")
    (tmp_path / "in/b.txt").symlink_to("a.txt")
    (tmp_path / "in/c.txt").symlink_to(tmp_path / "far.txt")
    first, second, far = list_files(tmp_path / "in")
    assert first.identity == second.identity == str((tmp_path / "in/a.txt").resolve())
    assert (first.is_link, second.is_link, far.is_link) == (False, True, True)
    assert far.identity == str((tmp_path / "far.txt").resolve())


def test_what_cannot_be_opened_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "ring.txt").symlink_to(tmp_path / "ring.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    assert [(entry.name, entry.is_file) for entry in list_files(tmp_path)] == [
        ("gone.txt", False),
        ("pipe.txt", False),
        ("ring.txt", False),
    ]


def test_a_directory_that_is_a_link_is_walked(tmp_path: Path) -> None:
    touch(tmp_path / "far/a.txt")
    (tmp_path / "here").symlink_to(tmp_path / "far")
    assert list_files(tmp_path / "here") == (
        Entry(name="a.txt", identity=str((tmp_path / "far/a.txt").resolve())),
    )


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a/b.txt")
    scan = os.scandir

    def scandir(path: str) -> "os._ScandirIterator[str]":
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RequestError, match=r"cannot read .*/a: Permission denied"):
        list_files(tmp_path)


NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
@example([b"\xff.txt", b"a\nb.txt", b"-x.txt", b" ", b"*"])
def test_a_file_of_any_name_is_listed_under_its_name(tmp_path_factory: Any, names: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in (names := [name for name in names if name not in (b".", b"..")]):
        (folder / os.fsdecode(name)).write_bytes(name)
    entries = list_files(folder)
    assert sorted(entry.name for entry in entries) == sorted(map(os.fsdecode, names))
    assert all((folder / entry.name).read_bytes() == os.fsencode(entry.name) for entry in entries)
