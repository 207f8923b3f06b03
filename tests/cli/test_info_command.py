import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store import document
from alens.store.cache_reader import open_cache

Copy = Callable[[Path], Path]


def test_a_sealed_cache(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("info", demo_cache)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"cache: {demo_cache}" in lines
    assert "state: sealed" in lines
    assert "rows: 6144" in lines
    assert "targets: top 16 and 16 tail samples, exact teacher" in lines
    assert any(line.startswith("  sites/attn.z/03  6144x6x32  float16  ") for line in lines)


def test_json_has_the_same_and_parses(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("info", demo_cache, "--json")
    body = json.loads(out)
    assert (code, err) == (0, "")
    assert body["plan"] == open_cache(demo_cache).plan.identity
    assert body["rows"] == body["rows_planned"] == 6144
    assert len(body["arrays"]) == 28


def test_sizes_are_those_on_disk(run_alens: Any, demo_cache: Path) -> None:
    body = json.loads(run_alens("info", demo_cache, "--json").stdout)
    files = [p for p in (demo_cache / "arrays.zarr").rglob("c.*") if "model" not in p.parts]
    assert body["bytes"] == sum(file.stat().st_size for file in files)
    # 4 layers x 6 heads x 32 in float16; ids, log-probabilities, draws, three float32, final; the place
    assert body["bytes_per_row"] == 4 * 6 * 32 * 2 + 16 * 2 * 3 + 3 * 4 + 192 * 2 + 2 + 4 + 2


def test_a_cache_in_the_making(run_alens: Any, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    (store / "MANIFEST.json").unlink()
    for shard in (1, 4):
        (store / f"commits/{shard:06d}.json").unlink()
    body = json.loads(run_alens("info", store, "--json").stdout)
    assert body["state"] == "4 of 6 shards committed"
    assert body["missing_shards"] == "1,4"
    assert (body["rows"], body["rows_planned"]) == (4096, 6144)


def test_a_mixture_of_software_is_reported(run_alens: Any, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    record = store / "commits/000003.json"
    body = document.decode(record.read_bytes(), "record")
    record.write_bytes(document.encode({**body, "torch": "9.9"}))
    assert "(a mixture: shards may differ in the last bits)" in run_alens("info", store).stdout
    assert "a mixture" not in run_alens("info", demo_cache).stdout


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_what_is_neither_cache_nor_lenses_is_refused(
    run_alens: Any, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "place")
    code, out, err = run_alens("info", tmp_path / "place")
    assert (code, out) == (2, "")
    assert err == f"alens: {tmp_path}/place is neither a cache (no plan.json) nor lenses (no lens.json)\n"


def test_a_damaged_plan_is_a_failure_of_one_line(run_alens: Any, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    (store / "plan.json").write_text((store / "plan.json").read_text()[:500])
    code, out, err = run_alens("info", store)
    assert (code, out) == (1, "")
    assert err.startswith(f"alens: {store}/plan.json is not whole")
    assert err.count("\n") == 1
