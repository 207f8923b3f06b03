"""What stage two waits for: rows/s of its batches beside a raw sequential read of the same files, and of a fit.

In: a cache (default: one of the demo). Out, as one JSON document: MB/s of reading every file of the shards as it is, of `RowReader` (checked,
decoded), of `BatchStream` (batches as tensors), alternating in one process, page cache dropped where that is
allowed; and the share of its time that `alens fit` waited for data.

    python benchmarks/reading.py [STORE] [--layers 3] [--rounds 3] [--fit-steps 50]
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch

from alens import CacheRequest, write_cache
from alens.fit.batches import BatchStream
from alens.fit.recipe import Recipe
from alens.fit.settings import FitSettings
from alens.machine.allotment import follow_allotment
from alens.store.cache_reader import Cache, open_cache
from alens.store.schema import CacheSettings


def files_of(cache: Cache, names: list[str], shards: list[int]) -> list[Path]:
    """The shard files of some arrays."""
    specs = [cache.spec(name) for name in names]
    return [cache.paths.shard_file(s.name, shard, len(s.shape)) for s in specs for shard in shards]


def forget(files: list[Path]) -> None:
    """Ask the kernel to drop what it holds of these files."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def raw(files: list[Path]) -> None:
    """Read every byte, in order."""
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass


def seconds(work: Callable[[], object], files: list[Path]) -> float:
    """Seconds of one cold run."""
    forget(files)
    since = time.monotonic()
    work()
    return time.monotonic() - since


def rates(cache: Cache, settings: FitSettings, rounds: int) -> dict[str, Any]:
    """MB/s of each way to read the same shards."""
    recipe = Recipe(settings, cache, torch.device("cpu"))
    shards = list(cache.shards)
    stream = BatchStream(reader=recipe.reader, shards=cache.shards, batch_rows=settings.batch_rows, seed=0)
    files = files_of(cache, [*recipe.reader.names(), "rows/position"], shards)
    megabytes = sum(path.stat().st_size for path in files) / 1e6

    def read_rows() -> None:
        for shard in shards:
            recipe.reader.shard(shard)

    def read_batches() -> None:
        for _ in stream.batches(0, stream.steps_for(1.0)):
            pass

    ways = {"raw": lambda: raw(files), "rows": read_rows, "batches": read_batches}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            took[name].append(seconds(work, files))
    return {
        "megabytes": round(megabytes),
        "mb_a_s": {name: round(megabytes / statistics.median(times)) for name, times in took.items()},
        "rows_a_s_of_batches": round(stream.rows_per_epoch / statistics.median(took["batches"])),
    }


def waited(store: Path, layers: str, steps: int) -> str:
    """What `alens fit` itself says."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "alens", "fit", str(store), f"{work}/lenses", "--layers", layers]
        command += ["--steps", str(steps), "--tolerance", "0", "--eval-rows", "1024", "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    match = re.search(r"took .*", done.stdout)
    return match[0] if match else done.stdout


def demo_cache(store: Path) -> Path:
    """A cache of the bundled model and text."""
    settings = CacheSettings(max_rows=65_536, rows_per_shard=8192)
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    return store


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--layers", default="0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fit-steps", type=int, default=50)
    given = parser.parse_args()
    follow_allotment()
    layers = tuple(int(layer) for layer in given.layers.split(","))
    with tempfile.TemporaryDirectory() as work:
        store = given.store or demo_cache(Path(work) / "cache")
        measured = rates(open_cache(store), FitSettings(layers=layers), given.rounds)
        print(json.dumps({**measured, "fit": waited(store, given.layers, given.fit_steps)}, indent=1))


if __name__ == "__main__":
    main()
