"""Something else in the place of a file, and files that cannot be read."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alens.errors import RequestError
from alens.store.repair import repair
from alens.store.verify import verify_cache

from ..folders import states
from .whole_caches import Z, only, short


@pytest.mark.parametrize(
    "name", ["plan.json", "tokens.npy", "MANIFEST.json", "commits/model.json", "commits/000001.json", f"{Z}/c.1.0.0", f"{Z}/zarr.json"]
)  # fmt: skip
@pytest.mark.parametrize("what", ["directory", "pipe"])
def test_no_file_where_one_belongs(whole_store: Path, name: str, what: str) -> None:
    (whole_store / name).unlink()
    (whole_store / name).mkdir() if what == "directory" else os.mkfifo(whole_store / name)
    verdict = verify_cache(whole_store)
    assert short(verdict) == [("damaged", name)]
    assert repair(whole_store, verdict.findings) == {}
    assert "move it away" in verdict.findings[0].mend


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Paths (by their end) that the system refuses to open, with the error number: root may read everything."""
    refused: dict[str, int] = {}
    opened = Path.open

    def open_(self: Path, *args: Any, **kwargs: Any) -> Any:
        for end, number in refused.items():
            if str(self).endswith(end):
                raise OSError(number, os.strerror(number), str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_)
    return refused


@pytest.mark.parametrize(
    "name", ["plan.json", "tokens.npy", "MANIFEST.json", "commits/model.json", "commits/000001.json", f"{Z}/c.1.0.0"]
)  # fmt: skip
def test_what_may_not_be_read_is_named_and_left_alone(
    whole_store: Path, refusing: dict[str, int], name: str
) -> None:
    refusing[name] = errno.EACCES
    before, verdict = states(whole_store), verify_cache(whole_store)
    assert short(verdict) == [("damaged", name)]
    assert verdict.findings[0].what == "cannot be read (Permission denied)"
    assert repair(whole_store, verdict.findings) == {} and states(whole_store) == before


def test_nothing_may_be_read(whole_store: Path, refusing: dict[str, int]) -> None:
    refusing[""] = errno.EACCES
    before, verdict = states(whole_store), verify_cache(whole_store)
    assert not verdict.whole
    assert {f.what for f in verdict.findings} == {"cannot be read (Permission denied)"}
    assert repair(whole_store, verdict.findings) == {} and states(whole_store) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("folder", ["commits", "arrays.zarr", "."])
def test_a_folder_that_may_not_be_entered(whole_store: Path, folder: str) -> None:
    before = states(whole_store)
    (whole_store / folder).chmod(0)
    try:
        if folder == ".":
            with pytest.raises(RequestError):
                verify_cache(whole_store)
        else:
            verdict = verify_cache(whole_store)
            assert not verdict.whole
            assert repair(whole_store, verdict.findings) == {}
    finally:
        (whole_store / folder).chmod(0o755)
    assert states(whole_store) == before


def test_bytes_that_the_disk_lost_are_queued(whole_store: Path, refusing: dict[str, int]) -> None:
    refusing[f"{Z}/c.1.0.0"] = errno.EIO
    assert only(whole_store).queue == ("MANIFEST.json", "commits/000001.json")
