from pathlib import Path
from typing import Any

import pytest

from alens.errors import RequestError, RunError
from alens.store.verify import Verdict, verify_cache

from ..damage import flip
from ..object_servers import FaultyServer, S3Server, faulty_server
from .whole_caches import short

Z = "arrays.zarr/sites/attn.z/00"


def counted(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.files, verdict.bytes, verdict.shards_committed


def slow(*case: object) -> Any:
    """Each case asks for every file."""
    return pytest.param(*case, marks=pytest.mark.slow)


def test_every_byte_of_a_cache_at_an_address_is_read(
    far: str, near: Path, tmp_path: Path, faulty: FaultyServer
) -> None:
    verdict = verify_cache(far)
    assert verdict.whole and not verdict.findings
    assert counted(verdict) == counted(verify_cache(near))
    read = {path.partition("/float16/")[2] for path in faulty.requests}
    files = {path.relative_to(near).as_posix() for path in near.rglob("*") if path.is_file()}
    assert files <= read
    assert not (tmp_path / "stage").exists()


@pytest.mark.parametrize(
    ("fault", "name", "kind", "what"),
    [
        ("flip", f"{Z}/c.2.0.0", "damaged", "its SHA-256 is not that of what was written"),
        slow("short", f"{Z}/c.2.0.0", "damaged", None),
        slow("404", f"{Z}/c.2.0.0", "missing", "is not there"),
        slow("flip", "commits/000001.json", "damaged", "was altered or cut: it does not give its own hash"),
        slow("404", "tokens.npy", "missing", "is not there"),
    ],
)
def test_what_is_damaged_at_an_address_is_named(
    far: str, faulty: FaultyServer, fault: Any, name: str, kind: str, what: str | None
) -> None:
    faulty.fail(fault, name)
    findings = [finding for finding in verify_cache(far).findings if finding.fails]
    assert [(finding.kind, finding.path) for finding in findings] == [(kind, name)]
    assert what is None or findings[0].what == what


@pytest.mark.slow  # a copy is sent
def test_objects_that_no_cache_has_are_named(near: Path, copy_of: Any, s3: S3Server, impatient: None) -> None:
    store = copy_of(near)
    (store / "notes.txt").write_text("mine")
    (store / f"{Z}/more").write_text("mine")
    flip(store / f"{Z}/c.2.0.0")
    (store / "MANIFEST.json").unlink()
    assert short(verify_cache(s3.upload(store))) == [
        ("unfinished", "MANIFEST.json"),
        ("damaged", f"{Z}/c.2.0.0"),
        ("foreign", f"{Z}/more"),
        ("foreign", "notes.txt"),
    ]


@pytest.mark.slow  # every file is asked for, twice
def test_a_cache_over_http_is_verified_by_its_manifest(near: Path, copy_of: Any, impatient: None) -> None:
    store = copy_of(near)
    with faulty_server(store) as server:
        assert counted(verify_cache(server.endpoint)) == counted(verify_cache(near))
        (store / "commits/000001.json").unlink()
        assert ("missing", "commits/000001.json") in short(verify_cache(server.endpoint))
        (store / "MANIFEST.json").unlink()
        with pytest.raises(
            RequestError, match=r"has no whole MANIFEST.json, and what it holds cannot be listed"
        ):
            verify_cache(server.endpoint)


def test_what_cannot_be_verified_gives_one_line(far: str, faulty: FaultyServer) -> None:
    with pytest.raises(RequestError, match=rf"^{far}/no is not a cache"):
        verify_cache(f"{far}/no")
    faulty.fail("503", f"{Z}/c.2.0.0")
    with pytest.raises(RunError, match=rf"^cannot read {far}/{Z}/c.2.0.0: the server answers 503"):
        verify_cache(far)
