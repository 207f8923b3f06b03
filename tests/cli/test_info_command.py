import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store import document
from alens.store.cache_reader import open_cache
from alens.store.claim import Claim
from alens.store.one_writer import CLAIM

from .. import documents
from ..outcomes import refusal

Copy = Callable[[Path], Path]


def test_a_sealed_cache(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("info", demo_cache)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"cache: {demo_cache}" in lines
    assert "state: sealed" in lines
    assert "rows: 6,144" in lines and "layers: 0-3" in lines
    assert "targets: top 16 and 16 tail samples, exact teacher" in lines
    assert "arrays: 4 of sites, " in out and "missing" not in out
    assert len(lines) <= 24
    lines = run_alens("info", demo_cache, "--all").stdout.splitlines()
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
    lines = run_alens("info", store).stdout.splitlines()
    assert "missing shards: 1,4" in lines and "rows: 4,096 of 6,144" in lines
    assert "workers to run again: 0 of 1 (--array N gives them for N workers)" in lines


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


def test_a_long_list_is_short_unless_all_is_asked_for(
    run_alens: Any, demo_lenses: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)

    def many(body: dict[str, Any]) -> None:
        heads = [{**body["held_out"]["0"][0], "kl": 3.0 - 0.1 * head} for head in range(6)]
        body |= {"layers": [0, 3], "heads": list(range(6)), "held_out": {"0": heads, "3": heads}}

    documents.edit(lenses / "lens.json", many)
    short, everything = (run_alens("info", lenses, *more).stdout for more in ((), ("--all",)))
    assert "held out: 12 heads, the best first; 2 more: --all\n" in short
    shown = [line.split()[0] for line in short.splitlines() if line.startswith("  ")]
    assert shown[:2] == ["0.5", "3.5"] and len(shown) == 10
    assert [line.split()[0] for line in everything.splitlines() if line.startswith("  ")] == [
        f"{layer}.{head}" for layer in (0, 3) for head in range(6)
    ]


def test_who_fits_there_is_named(run_alens: Any, demo_lenses: Path, copy_of: Copy, tmp_path: Path) -> None:
    lenses = copy_of(demo_lenses)
    (tmp_path / "begun").mkdir()
    for folder in (lenses, tmp_path / "begun"):
        assert Claim(folder / CLAIM).take()
    said = f"process {os.getpid()} on {socket.gethostname()}, since 20"
    assert f"in use by: {said}" in run_alens("info", lenses).stdout
    assert json.loads(run_alens("info", lenses, "--json").stdout)["in_use_by"].startswith(said)
    assert f"is being fitted by {said}" in refusal(run_alens("info", tmp_path / "begun"))
    (lenses / "lens.json").unlink()
    body = json.loads((lenses / CLAIM).read_text())
    (lenses / CLAIM).write_text(json.dumps(body | {"pid": 2**22 + 1}))
    line = refusal(run_alens("info", lenses))
    assert "has not finished: run the same `alens fit` again" in line and line.endswith(", has ended)")
