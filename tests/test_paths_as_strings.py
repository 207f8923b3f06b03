"""Python's users write paths as strings: the door takes them as it takes `Path`."""

from pathlib import Path

import pytest

from alens import (
    AlensError,
    CacheRequest,
    FitRequest,
    export_lenses,
    load_lenses,
    read_sweep,
    verify_cache,
    write_page,
)


def test_requests_hold_paths() -> None:
    fit = FitRequest(store="cache", lenses="lenses", deepspeed="zero.json")
    assert (fit.store, fit.lenses, fit.deepspeed) == (Path("cache"), Path("lenses"), Path("zero.json"))
    cache = CacheRequest(model="demo", corpus="demo", store="cache")
    assert cache.store == Path("cache")


@pytest.mark.parametrize(
    "asked",
    [
        lambda: FitRequest(store=3, lenses="lenses"),
        lambda: CacheRequest(model=3, corpus="demo", store="cache"),
        lambda: CacheRequest(model="demo", corpus="demo", store="cache", device=0),
    ],
)
def test_what_is_neither_is_refused_by_name(asked: object) -> None:
    assert callable(asked)
    with pytest.raises(AlensError, match=r"^(store|model|device) is \d: it must be a (path|string)$"):
        asked()


def test_functions_take_strings(demo_cache: Path, demo_lenses: Path, tmp_path: Path) -> None:
    assert verify_cache(str(demo_cache)).findings == ()
    out = str(tmp_path / "export")
    export_lenses(load_lenses(str(demo_lenses)), out)
    assert (Path(out) / "README.md").exists()
    (tmp_path / "sweep.toml").write_text("[grid]\nlr = [0.01, 0.02]\n")
    assert len(read_sweep(str(tmp_path / "sweep.toml")).variants) == 2
    with pytest.raises(AlensError, match="a page is"):
        write_page(str(tmp_path / "page.txt"), {})
