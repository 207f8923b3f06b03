from pathlib import Path

import pytest

from alens.errors import RequestError
from alens.remote.address import address, refuse


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        (Path("s3://bucket/a/b"), "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        (Path("https://host.org:8443/a"), "https://host.org:8443/a"),
        ("http://127.0.0.1:80/a", "http://127.0.0.1:80/a"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("/tmp/s3", None),
        ("s3", None),
        ("hf://owner/name", None),
    ],
)
def test_addresses_are_told_from_paths(given: str | Path, read: str | None) -> None:
    where = address(given)
    assert (None if where is None else str(where)) == read


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "gs://bucket/a",
            "gs://bucket/a has the scheme gs: give s3://BUCKET/PREFIX, https://HOST/PATH or a path",
        ),
        (
            "s3://Bucket/a",
            "s3://Bucket/a names no bucket: give s3://BUCKET/PREFIX, BUCKET 3 to 63 of a-z, 0-9, . and -",
        ),
        (
            Path("s3://b/a"),  # a path keeps one slash of two
            "s3://b/a names no bucket: give s3://BUCKET/PREFIX, BUCKET 3 to 63 of a-z, 0-9, . and -",
        ),
        (
            "https://host/a?token=secret",
            "https://host/a has more than a path: give an address without ? and #",
        ),
        ("https://me:secret@host/a", "https://host/a was given with a name or password: leave them out"),
        ("http://host/a", "http://host/a is not protected on the way: give https://host/a"),
        ("https:///", "https:// names no host: give https://HOST/PATH"),
        ("s3://bucket/../a", "s3://bucket/../a has . or .. in its path: write it without them"),
    ],
)
def test_what_cannot_be_read_is_refused_without_its_secrets(given: str, line: str) -> None:
    with pytest.raises(RequestError) as refused:
        address(given)
    assert str(refused.value) == line


def test_work_on_this_machine_refuses_addresses() -> None:
    refuse(Path("a/directory"), "a cache is not written to")
    with pytest.raises(
        RequestError, match="a cache is not written to s3://bucket/a: give a directory of this machine"
    ):
        refuse(Path("s3://bucket/a"), "a cache is not written to")
