"""`alens plan` as people run it: its text, its JSON, its exit codes."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store.cache_reader import open_cache

Copy = Callable[[Path], Path]
SMALL = [
    *("--seq-len", "32", "--rows-per-shard", "128", "--max-rows", "512", "--batch-size", "2"),
    *("--top-k", "4", "--tail-samples", "4", "--layers", "0,2-3", "--device", "cpu"),
]
pytestmark = pytest.mark.usefixtures("small_writes")

SHORT = ["--probe-seconds", "0.05"]


def statvfs(**changes: int) -> Callable[[Any], os.statvfs_result]:
    """A file system with 10 GB and a million inodes free, but for `changes`."""
    fields = {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 10**7, "f_bfree": 10**7, "f_bavail": 2_500_000}
    fields |= {"f_files": 10**7, "f_ffree": 10**6, "f_favail": 10**6, "f_flag": 0, "f_namemax": 255}
    return lambda _: os.statvfs_result(tuple((fields | changes).values()))


def test_its_text_is_short_and_narrow(run_alens: Any, tmp_path: Path) -> None:
    code, out, _ = run_alens("plan", "demo", "demo", tmp_path / "store", *SMALL, *SHORT, "--workers", "2")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) < 68
    assert [line for line in lines if len(line) > 100] == []
    assert lines[0] == "cache of  demo over demo, on cpu"
    assert lines[1] == "text      512 rows = 16 sequences of 32 tokens, 4 shards of 128 rows"
    assert lines[2] == "          exact; spread over the whole text"
    (line,) = [line for line in lines if line.startswith("sites/attn.z (3 layers)")]
    assert line.split()[3:] == ["1,152.6", "148", "kB", "590", "kB", "12"]
    assert any(line.startswith("time ") and " with one worker: tokenising " in line for line in lines)
    assert any(" with 2 workers as fast as this one" in line for line in lines)
    assert any(line.startswith("          on 1 thread") for line in lines)
    place = lines.index("scaled    model from 32 of the 64 rows of a batch")
    assert lines[place + 1].startswith("          fit from 128 of the 1,024 rows of a step, ")
    (line,) = [line for line in lines if line.startswith("fit       ")]
    assert line.startswith(
        "fit       linear lenses of 18 heads with the default settings: at most 1 steps of 1,024"
    )
    assert any(line.startswith("room      it fits: ") for line in lines)
    assert any(re.match(r"layer 0 \(6 heads\) +1 ", line) for line in lines)
    assert any(re.match(r"3 layers \(18 heads\) +1 ", line) for line in lines)
    assert "P passes: cache c + w + P max(r, g), no cache P (f + g)" in lines
    assert not (tmp_path / "store").exists()


def test_it_says_what_is_held_out(run_alens: Any, tmp_path: Path) -> None:
    options = [*SMALL, *SHORT, "--document-column", "document"]
    code, out, _ = run_alens("plan", "demo", "demo", tmp_path / "store", *options)
    assert code == 0
    assert out.splitlines()[2] == "          the last 4 of them are of held-out documents"
    (line,) = [line for line in out.splitlines() if line.startswith("documents.npy ")]
    assert line.split()[1:] == ["2.18", "kB", "1"]


def test_json_has_the_same_figures(run_alens: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    code, out, _ = run_alens("plan", "demo", "demo", store, *SMALL, *SHORT, "--json")
    body = json.loads(out)
    assert code == 0
    assert (body["text"]["rows"], body["text"]["shards"], body["text"]["exact"]) == (512, 4, True)
    assert run_alens("cache", "demo", "demo", store, *SMALL).code == 0
    files = [path for path in store.rglob("*") if path.is_file()]
    assert body["bytes"]["files"] == len(files)
    assert body["bytes"]["inodes"] == 1 + len(list(store.rglob("*")))
    for array in body["bytes"]["arrays"]:
        files = (store / "arrays.zarr" / array["name"]).glob("c.*")
        assert array["bytes"] == sum(path.stat().st_size for path in files), array["name"]


def test_without_a_store_it_looks_at_the_current_directory(
    run_alens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    code, out, _ = run_alens("plan", "demo", "demo", *SMALL, *SHORT)
    assert code == 0
    assert f"room      it fits: {tmp_path}\n" in out
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_it_takes_the_configuration_of_a_cache(run_alens: Any, tmp_path: Path) -> None:
    config = tmp_path / "jobs.toml"
    config.write_text(
        f'model = "demo"\ncorpus = "demo"\nstore = "{tmp_path}/store"\nworker = "1/4"\nmax_minutes = 0.001\n'
        'seq_len = 32\nrows_per_shard = 128\nmax_rows = 512\nbatch_size = 2\nlayers = "0"\ndevice = "cpu"\n'
    )
    code, out, _ = run_alens("plan", "--config", config, *SHORT, "--json")
    body = json.loads(out)
    assert (code, body["time"]["workers"], body["time"]["max_minutes"]) == (0, 4, 0.001)
    assert body["time"]["runs_per_worker"] >= 1
    assert body["room"]["where"] == str(tmp_path)
    assert not (tmp_path / "store").exists()
    assert run_alens("plan", "--config", config, *SHORT, "--workers", "2", "--json").code == 0


def test_a_cache_that_was_begun(run_alens: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run_alens("cache", "demo", "demo", store, *SMALL, "--worker", "0/4").code == 0
    code, out, _ = run_alens("plan", "demo", "demo", store, *SMALL, *SHORT)
    assert code == 0
    assert "          of the plan in STORE; spread over the whole text\n" in out
    assert "to do     3 of 4 shards, 384 rows; the others are committed\n" in out
    assert "tokenising" not in out
    assert open_cache(store).shards == (0,)


@pytest.mark.parametrize(
    ("free", "says"),
    [
        ({"f_bavail": 4096}, "does not fit: needs "),
        ({"f_favail": 20}, "does not fit: needs 161 files and directories, free 20 in "),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_does_not_fit_is_shown_and_then_refused(
    run_alens: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: dict[str, int],
    says: str,
    as_json: bool,
) -> None:
    monkeypatch.setattr(os, "statvfs", statvfs(**free))
    flags = ["--json"] if as_json else []
    code, out, err = run_alens("plan", "demo", "demo", tmp_path / "store", *SMALL, *SHORT, *flags)
    assert code == 1
    last = err.splitlines()[-1]
    assert last.startswith(f"alens: {says}")
    assert last.endswith("make room, or ask for fewer rows, layers or sites")
    if as_json:
        assert json.loads(out)["room"]["fits"] is False
    else:
        assert f"room      DOES NOT FIT: {tmp_path}\n" in out
        assert "P passes" in out


def test_a_file_system_without_a_limit_of_files(
    run_alens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", statvfs(f_files=0, f_favail=0))
    code, out, _ = run_alens("plan", "demo", "demo", tmp_path / "store", *SMALL, *SHORT)
    assert code == 0
    assert "files and directories needed, the file system sets no limit\n" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--layers", "4"], "layer 4 does not exist: demo has layers 0 to 3"),
        (["--seq-len", "512", "--rows-per-shard", "512"], "seq_len is 512: demo sees 256 tokens at most"),
        (["--max-rows", "100"], "max_rows is 100: fewer than one shard of 128 rows"),
        (["--keep-bits", "10"], "keep_bits is 10: float16 has 10 mantissa bits"),
        (["--text-column", "body"], "corpus.parquet has no column 'body': it has text, document"),
        (["--workers", "0"], "workers is 0: it must be at least 1"),
        (["--worker", "3/3"], "worker 3/3 does not exist"),
        (["--probe-seconds", "0"], "probe_seconds is 0.0: it must be above 0"),
        (["--max-minutes", "0"], "max_minutes is 0.0: it must be above 0"),
    ],
)
def test_what_it_refuses(run_alens: Any, tmp_path: Path, arguments: list[str], says: str) -> None:
    code, out, err = run_alens("plan", "demo", "demo", tmp_path / "store", *SMALL, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("alens: ")
    assert err.count("\n") == 1
    assert says in err
    assert not (tmp_path / "store").exists()


def without_scale(lines: list[str]) -> list[str]:
    """The lines but for those that say what was scaled, and that the machine was busy."""
    first = next(index for index, line in enumerate(lines) if re.match(r" +on \d+ thread", line))
    return lines[: first + 1] + lines[next(i for i, line in enumerate(lines) if line.startswith("time ")) :]


def test_the_example_of_the_page_is_what_is_printed(run_alens: Any, tmp_path: Path) -> None:
    """Up to memory and times, which differ from machine to machine."""
    page = (Path(__file__).parents[2] / "docs/planning.md").read_text()
    example = page.partition("$ alens plan ")[2].partition("```")[0].splitlines()
    arguments = example[0].replace("demo-cache", str(tmp_path / "store")).split()
    code, out, _ = run_alens("plan", *arguments, "--device", "cpu", *SHORT)
    printed, example = without_scale(out.splitlines()), without_scale(example)
    last = next(index for index, line in enumerate(printed) if line.startswith("memory"))
    about = next(index for index, line in enumerate(printed) if "records and metadata" in line)
    assert code == 0
    assert printed[:about] == example[1 : 1 + about]
    assert printed[about + 2 : last] == example[3 + about : 1 + last]
    assert len(printed) == len(example[1:])
    assert printed[-2] == example[-2]


@pytest.mark.slow
def test_a_disk_that_is_really_small(run_alens: Any) -> None:
    """A mount of 24 MB, where this user may mount one."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root may mount")
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder]).returncode:
            pytest.skip("this place does not let root mount")
        try:
            outcome = run_alens("plan", "demo", "demo", f"{folder}/store", "--max-rows", "65536", *SHORT)
            assert outcome.code == 1
            assert "alens: does not fit: needs " in outcome.stderr
            assert not list(Path(folder).iterdir())
        finally:
            subprocess.run(["umount", folder], check=True)
