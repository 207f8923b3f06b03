"""Several workers on one cache: shards a second of 1, 2 and 4 processes that start together.

Each is `alens cache --worker I/N` with one thread, from an empty store to a sealed cache; the rate counts from
the first commit's shard to the last, by the records. Also what the store costs: MB/s of writing and reading the
arrays of one shard through the store, beside a raw file of the same bytes. Prints one JSON document.

    python benchmarks/workers.py [--shards 32] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from alens.store.arrays import shard_arrays
from alens.store.cache_reader import open_cache
from alens.store.writer import ShardWriter

ROWS_PER_SHARD = 4096
LARGE_SHARD = 65_536
"""Rows: 131 MB of the demo."""


def command(store: Path, rows: int, rows_per_shard: int, worker: str) -> list[str]:
    """One worker of a cache of the demo."""
    size = ["--max-rows", str(rows), "--rows-per-shard", str(rows_per_shard)]
    return [sys.executable, "-m", "alens", "cache", "demo", "demo", str(store), *size, "--worker", worker]


def shards_a_second(folder: Path, shards: int, workers: int) -> dict[str, float]:
    """Write a cache with so many processes at once."""
    store = folder / f"workers-{workers}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    since = time.time()
    size = shards * ROWS_PER_SHARD
    commands = [command(store, size, ROWS_PER_SHARD, f"{i}/{workers}") for i in range(workers)]
    nowhere = subprocess.DEVNULL
    jobs = [subprocess.Popen(line, env=environment, stdout=nowhere, stderr=nowhere) for line in commands]
    codes = [job.wait() for job in jobs]
    if any(codes):
        raise SystemExit("a worker failed")
    cache = open_cache(store)
    assert cache.sealed
    records = [cache.commits.record(shard) for shard in cache.shards]
    begun = min(record["finished"] - record["seconds"] for record in records)
    ended = max(record["finished"] for record in records)
    return {
        "shards_a_s": round(shards / (ended - begun), 3),
        "seconds_from_start_to_seal": round(time.time() - since, 1),
    }


def raw_write(path: Path, blob: memoryview) -> float:
    """Seconds of one file with fsync."""
    since = time.monotonic()
    with path.open("wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())
    return time.monotonic() - since


def forget(path: Path) -> None:
    """Ask the kernel to drop its copy of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def store_speed(store: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """The arrays of one large shard through the store, and as one raw file, in turns."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    making = command(store, LARGE_SHARD, LARGE_SHARD, "0/1")
    subprocess.run(making, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    cache = open_cache(store)
    plan, names = cache.plan, list(shard_arrays(cache.plan))
    arrays = {name: cache.read_shard(name, 0) for name in names}
    blob = memoryview(b"".join(values.tobytes() for values in arrays.values()))
    files = [cache.paths.arrays / key for key in cache.commits.record(0)["files"]]
    note = {"worker": "0/1", "rows": LARGE_SHARD, "seconds": 1.0, "finished": 0.0}
    seconds: dict[str, list[float]] = {name: [] for name in ("write", "raw write", "read", "raw read")}
    for _ in range(rounds):
        since = time.monotonic()
        ShardWriter(store, plan).write(0, arrays, note)
        seconds["write"].append(time.monotonic() - since)
        seconds["raw write"].append(raw_write(folder / "raw", blob))
        for file in (*files, folder / "raw"):
            forget(file)
        since = time.monotonic()
        fresh = open_cache(store)
        for name in names:
            fresh.read_shard(name, 0)
        seconds["read"].append(time.monotonic() - since)
        since = time.monotonic()
        np.fromfile(folder / "raw", np.uint8)
        seconds["raw read"].append(time.monotonic() - since)
    rates = {
        f"{name} MB/s": round(len(blob) / 1e6 / statistics.median(taken)) for name, taken in seconds.items()
    }
    return {"megabytes": round(len(blob) / 1e6, 1), "files": len(files), **rates}


def main() -> None:
    """Measure both, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = {
            "cores": len(os.sched_getaffinity(0)),
            "workers": {count: shards_a_second(folder, asked.shards, count) for count in (1, 2, 4)},
            "store": store_speed(folder / "large", folder, asked.rounds),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
