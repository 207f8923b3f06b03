"""CPUs and memory of a job, on made trees of cgroups of both versions, and threads that follow them."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alens.machine import allotment

Tree = Callable[[str, dict[str, str]], tuple[Path, Path]]


def test_omp_num_threads_beats_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert allotment.allotted_cpus() == 3


@pytest.mark.parametrize("text", ["", "0", "many"])
def test_the_affinity_counts_where_nothing_is_asked_for(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(allotment, "cpu_quota", lambda: math.inf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 7, 9})
    assert allotment.allotted_cpus() == 3


def test_a_quota_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for quota, expected in ((2.5, 3), (0.2, 1), (100.0, 64)):
        monkeypatch.setattr(allotment, "cpu_quota", lambda quota=quota: quota)
        assert allotment.allotted_cpus() == expected


def test_free_memory_is_at_most_the_limit_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(allotment, "memory_limit", lambda: math.inf)
    assert allotment.free_bytes(cpu) > 2**20
    monkeypatch.setattr(allotment, "memory_limit", lambda: 2**20)
    assert allotment.free_bytes(cpu) == 2**20


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A root of cgroups with files by path, and the file that names this process's own groups."""

    def make(own: str, files: dict[str, str]) -> tuple[Path, Path]:
        root = tmp_path / "sys"
        root.mkdir(exist_ok=True)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "own").write_text(own)
        return root, tmp_path / "own"

    return make


VERSION_2 = "0::/jobs/17\n"
VERSION_1 = "9:cpuset:/x\n4:memory:/jobs/17\n1:cpu,cpuacct:/jobs/17\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (VERSION_2, {}, math.inf),
        (VERSION_2, {"jobs/17/cpu.max": "max 100000"}, math.inf),
        (VERSION_2, {"jobs/17/cpu.max": "max 100000", "jobs/cpu.max": "250000 100000"}, 2.5),
        (VERSION_2, {"jobs/17/cpu.max": "800000 100000", "jobs/cpu.max": "250000 100000"}, 2.5),
        (VERSION_2, {"cpu.max": "150000 100000"}, 1.5),
        (VERSION_2, {"jobs/18/cpu.max": "150000 100000"}, math.inf),
        (VERSION_2, {"unified/jobs/cpu.max": "150000 100000"}, 1.5),
        (VERSION_2, {"jobs/17/cpu.max": "what is this"}, math.inf),
        (VERSION_1, {"cpu/jobs/17/cpu.cfs_quota_us": "-1", "cpu/jobs/17/cpu.cfs_period_us": "9"}, math.inf),
        (VERSION_1, {"cpu/jobs/cpu.cfs_quota_us": "50", "cpu/jobs/cpu.cfs_period_us": "20"}, 2.5),
        (VERSION_1, {"cpu,cpuacct/cpu.cfs_quota_us": "50", "cpu,cpuacct/cpu.cfs_period_us": "20"}, 2.5),
        (VERSION_1, {"cpu/jobs/cpu.cfs_quota_us": "50"}, math.inf),
    ],
    ids=str,
)
def test_the_least_quota_of_a_cgroup_and_those_above_it(
    tree: Tree, own: str, files: dict[str, str], expected: float
) -> None:
    assert allotment.cpu_quota(*tree(own, files)) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (VERSION_2, {}, math.inf),
        (VERSION_2, {"jobs/17/memory.max": "max", "jobs/memory.max": "4096", "memory.max": "8192"}, 4096),
        (VERSION_1, {"memory/jobs/17/memory.limit_in_bytes": "9223372036854771712"}, 9223372036854771712),
        (VERSION_1, {"memory/memory.limit_in_bytes": "4096"}, 4096),
        (VERSION_1, {"memory.max": "4096"}, math.inf),
    ],
    ids=str,
)
def test_the_least_memory_of_a_cgroup_and_those_above_it(
    tree: Tree, own: str, files: dict[str, str], expected: float
) -> None:
    assert allotment.memory_limit(*tree(own, files)) == expected


def test_a_system_without_cgroups_sets_no_limit(tmp_path: Path) -> None:
    assert allotment.cpu_quota(tmp_path, tmp_path / "none") == math.inf
    assert allotment.memory_limit(tmp_path, tmp_path / "none") == math.inf


def test_torch_zarr_and_the_tokenizer_are_told() -> None:
    script = (
        "import os, torch, zarr; from alens.machine.allotment import follow_allotment; n = follow_allotment();"
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
    """libgomp reads the environment once, when torch is imported, and says then how often its threads will spin."""
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
