"""CPUs and memory of this job, as opposed to those of the machine, and threads that keep to them.

In: OMP_NUM_THREADS, the process's affinity, /proc and the cgroups of a scheduler or container, version 1 or 2. Out: a
number of CPUs, and bytes; torch, zarr and the tokenizer with as many threads. Left alone, zarr takes every CPU of the
node. A cgroup is bound by its own limit and by those of all groups above it.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
"""A line for each hierarchy: `0::/path` in version 2, `4:cpu,cpuacct:/path` in version 1."""


def allotted_cpus() -> int:
    """CPUs that this process may use: OMP_NUM_THREADS if it is set, else the least of affinity and cgroup quota."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked):
        return int(asked)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, cpu_quota())))


def free_bytes(device: "torch.device") -> int:
    """Free memory of `device`; on a CPU, at most what the job may have in all."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(min(int(meminfo["MemAvailable"].split()[0]) * 1024, memory_limit()))


def wait_asleep() -> None:
    """Let threads of OpenMP fall asleep soon while they wait for each other; call it before torch is imported.

    By default they spin 300,000 times first (libgomp). When something else runs on one of the CPUs, a spinning thread
    takes time from the thread it waits for. Stage one of the demo on two CPUs, 65,536 rows: 9.2 s with 300,000 turns,
    9.5 s with 1,000 and 10.1 s with none; beside two busy processes 45 s, 18 s and 19 s (one thread: 19 s).
    OMP_WAIT_POLICY and GOMP_SPINCOUNT take precedence where they are set.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def follow_allotment() -> int:
    """Set the number of threads of everything that computes in this process, and return it."""
    import torch
    import zarr

    count = allotted_cpus()
    torch.set_num_threads(count)
    zarr.config.set({"threading.max_workers": count})
    # the tokenizer's thread pool reads this when it is made, at the first text
    os.environ.setdefault("RAYON_NUM_THREADS", str(count))
    return count


def cpu_quota(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """CPUs that the cgroups of this process allow; `inf` where they set no limit."""
    return _least("cpu", _cpus, root, own)


def memory_limit(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Bytes that the cgroups of this process allow; `inf` where they set no limit."""
    return _least("memory", _memory, root, own)


def _least(controller: str, limit: Callable[[Path], float], root: Path, own: Path) -> float:
    limits = [math.inf]
    for folder in _folders(controller, root, own):
        # a root has no limit of its own, and a container does not see the groups above it
        with contextlib.suppress(OSError, ValueError):
            limits.append(limit(folder))
    return min(limits)


def _folders(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The cgroup of this process and all groups above it, in each hierarchy that may limit `controller`."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount = root / "unified" if (root / "unified").is_dir() else root
        elif controller in controllers.split(","):
            mount = root / controller if (root / controller).is_dir() else root / controllers
        else:
            continue
        folder = mount / path.lstrip("/")
        yield from (one for one in (folder, *folder.parents) if one.is_relative_to(mount))


def _cpus(folder: Path) -> float:
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
    else:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def _memory(folder: Path) -> float:
    version_2 = folder / "memory.max"
    text = (version_2 if version_2.exists() else folder / "memory.limit_in_bytes").read_text().strip()
    return math.inf if text == "max" else int(text)
