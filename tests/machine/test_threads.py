"""Threads follow OMP_NUM_THREADS, the affinity and the cgroup's quota, whichever is least."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alens.machine import threads


def test_what_is_asked_for_beats_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads.allotted() == 3


@pytest.mark.parametrize("text", ["", "0", "many"])
def test_the_affinity_counts_where_nothing_is_asked_for(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(threads, "_quota", lambda *_: float("inf"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 7, 9})
    assert threads.allotted() == 3


def test_a_quota_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for quota, expected in ((2.5, 3), (0.2, 1), (100.0, 64)):
        monkeypatch.setattr(threads, "_quota", lambda *_, quota=quota: quota)
        assert threads.allotted() == expected


def test_the_least_quota_from_the_cgroup_up_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("12:cpuset:/x\n0::/jobs/17\n")
    root = tmp_path / "sys"
    (root / "jobs/17").mkdir(parents=True)
    assert threads._quota(root, own) == float("inf")
    (root / "jobs/17/cpu.max").write_text("max 100000\n")
    assert threads._quota(root, own) == float("inf")
    (root / "jobs/cpu.max").write_text("250000 100000\n")
    assert threads._quota(root, own) == 2.5
    (root / "jobs/17/cpu.max").write_text("800000 100000\n")
    assert threads._quota(root, own) == 2.5
    assert threads._quota(root, tmp_path / "none") == float("inf")


def test_torch_zarr_and_the_tokenizer_are_told() -> None:
    script = (
        "import os, torch, zarr; from alens.machine.threads import follow_allotment; n = follow_allotment();"
        "print(n, torch.get_num_threads(), zarr.config.get('threading.max_workers'), os.environ['RAYON_NUM_THREADS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "1", "1", "1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")],
)
def test_threads_of_a_command_sleep_soon_while_they_wait(given: dict[str, str], expected: str) -> None:
    """libgomp reads the environment once, when torch is imported: it says itself how long its threads turn in a loop."""
    script = "import sys; sys.argv[1:] = ['fit', '--help']; from alens.cli import main; import atexit; atexit.register(__import__, 'torch'); main()"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
