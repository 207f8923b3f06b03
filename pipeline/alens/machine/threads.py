"""How many threads: those of the job's allotment, not those of the machine.

In: the process' affinity, its cgroup's quota, and OMP_NUM_THREADS, which beats both. Out: torch, zarr and
the tokenizer keep to it. Left alone, zarr takes every CPU of the node, whatever the scheduler gave.
"""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allotted() -> int:
    """CPUs this process may use: OMP_NUM_THREADS if it is set, else its affinity and its cgroup's quota."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked):
        return int(asked)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _quota(CGROUPS, Path("/proc/self/cgroup")))))


def wait_asleep() -> None:
    """Let threads of OpenMP go to sleep soon while they wait for each other; to be called before torch is imported.

    By its default libgomp lets them turn in a loop 300,000 times first. Where something else runs on one of the CPUs,
    the loop takes from the thread that is waited for. Stage one of the demo on two CPUs, 65,536 rows: 9.2 s with 300,000
    turns, 9.5 s with 1,000 and 10.1 s with none; beside two busy processes 45 s, 18 s and 19 s (one thread: 19 s). What
    OMP_WAIT_POLICY or GOMP_SPINCOUNT say beats this.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def follow_allotment() -> int:
    """Set the threads of everything that computes in this process; the number that was set."""
    import torch
    import zarr

    count = allotted()
    torch.set_num_threads(count)
    zarr.config.set({"threading.max_workers": count})
    # Rust's thread pool is made at the first text; before that, it can be told.
    os.environ.setdefault("RAYON_NUM_THREADS", str(count))
    return count


def _quota(root: Path, own: Path) -> float:
    """The CPUs that cgroup v2 lets this process use, `inf` where it sets no limit."""
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return math.inf
    quotas = [math.inf]
    folder = root / line.removeprefix("0::").lstrip("/")
    while folder.is_relative_to(root):
        try:
            limit, period = (folder / "cpu.max").read_text().split()
            quotas.append(math.inf if limit == "max" else int(limit) / int(period))
        except (OSError, ValueError):
            pass  # the root has no limit of its own
        folder = folder.parent
    return min(quotas)
