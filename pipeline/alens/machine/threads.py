"""Threads of everything that computes: as many as the job has CPUs, and asleep while they wait.

In: the job's allotment of CPUs. Out: torch, zarr and the tokenizer keep to it. Left alone, zarr takes every CPU of the
node, whatever the scheduler gave.
"""

import os

from alens.machine.allotment import allotted_cpus


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
