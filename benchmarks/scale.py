"""What many workers and many rows do to a store: the tables of docs/scale.md, computed from measured rates.

In: nothing, or `--measure` for the rates of this machine. Out: the tables, in Markdown. Nothing is cached or fitted. A rate is
CPU time of one process on the machine that is named in the page; files in memory or on a local disk, so a network file
system adds its round trips.

    python benchmarks/scale.py [--rows 1e11] [--workers 1000] [--rows-per-second 262] [--measure]
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alens.pictures.numbers import duration, size, whole
from alens.store.status import MOST_READ

SHARDS = (8192, 65_536, 524_288, 4_194_304)
"""Rows a shard in the second table; `--rows-per-shard` takes up to 2^32."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Measured on SmolLM2-135M, all 30 layers with the exact teacher, on one core of two."""

    rows_per_second: float = 262.0
    """Rows that a worker caches, by `alens info` of a cache of 114,688 rows."""
    row_bytes: int = 36_116
    """As `alens info` says it."""
    shard_statistics_bytes: int = 9_385_580
    """What a shard holds beside its rows: sums for moments, and checksums."""
    token_bytes: int = 2
    """A token in `tokens.npy`, of a vocabulary below 65,536."""
    files_a_shard: int = 101
    """As its commit record names them."""
    record_bytes: int = 14_522
    record_s: float = 0.00085
    """To read, check and parse a record, the least of five rounds over 14 records."""
    record_memory_bytes: int = 46_512
    """A record in memory, by tracemalloc."""
    name_s: float = 0.153 / 200_000
    """To list and sort the name of a record, of 200,000 in one directory."""
    hash_bytes_per_s: float = 1.957e9
    """SHA-256 of 256 MiB in memory, the best of three rounds."""
    tokens_per_second: float = 398_885
    """A job that tokenises, on a novel."""
    start_s: float = 0.1
    """To open a cache, without its tokens."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store of so many rows, by so many workers."""

    rows: float
    workers: int
    rows_per_shard: int
    rates: Rates

    @property
    def shards(self) -> int:
        return max(1, round(self.rows / self.rows_per_shard))

    @property
    def bytes(self) -> float:
        return self.rows * self.rates.row_bytes + self.shards * self.rates.shard_statistics_bytes

    @property
    def files(self) -> int:
        return self.shards * (self.rates.files_a_shard + 1)

    @property
    def tokens_bytes(self) -> float:
        return self.rows * self.rates.token_bytes

    @property
    def list_s(self) -> float:
        return self.shards * self.rates.name_s

    @property
    def hash_tokens_s(self) -> float:
        return self.tokens_bytes / self.rates.hash_bytes_per_s

    @property
    def info_s(self) -> float:
        return self.rates.start_s + self.list_s + min(self.shards, MOST_READ) * self.rates.record_s

    @property
    def every_record_s(self) -> float:
        return self.shards * self.rates.record_s

    @property
    def share_s(self) -> float:
        """A worker reads the records of its share, and hashes all tokens."""
        return self.rates.start_s + self.every_record_s / self.workers + self.hash_tokens_s

    @property
    def fit_s(self) -> float:
        """The start of a fit of 64 shards of a sealed cache: the list, their records, all tokens."""
        return self.rates.start_s + self.list_s + 64 * self.rates.record_s + self.hash_tokens_s

    @property
    def verify_s(self) -> float:
        return self.every_record_s + (self.bytes + self.tokens_bytes) / self.rates.hash_bytes_per_s


def by_size(rates: Rates, rows: Sequence[float], workers: int, rows_per_shard: int) -> Iterator[str]:
    """The first table: a column for each number of rows."""
    stores = [Store(rows=one, workers=workers, rows_per_shard=rows_per_shard, rates=rates) for one in rows]
    yield f"| {workers:,} workers, {rows_per_shard:,} rows a shard | {' | '.join(f'{one:.0e} rows'.replace('e+', 'e') for one in rows)} |"
    yield f"| --- |{' --- |' * len(rows)}"
    lines = {
        "shards, and files in each directory of an array": [f"{one.shards:,}" for one in stores],
        "files in all": [f"{one.files:,}" for one in stores],
        "bytes of shards": [size(one.bytes) for one in stores],
        "bytes of records": [size(one.shards * rates.record_bytes) for one in stores],
        "bytes of tokens.npy": [size(one.tokens_bytes) for one in stores],
        "one job tokenises for": [duration(one.rows / rates.tokens_per_second) for one in stores],
        "each worker caches for": [duration(one.rows / workers / rates.rows_per_second) for one in stores],
        "a worker starts, without its model": [duration(one.share_s) for one in stores],
        "of which it hashes all tokens": [duration(one.hash_tokens_s) for one in stores],
        "`alens info`": [duration(one.info_s) for one in stores],
        "`alens info --array N` of an unsealed store, and sealing": [
            duration(one.every_record_s) for one in stores
        ],
        "a fit of 64 shards starts (sealed)": [duration(one.fit_s) for one in stores],
        "`alens verify`, one core": [duration(one.verify_s) for one in stores],
        "memory of `alens verify` for records": [
            size(one.shards * (rates.record_memory_bytes + rates.record_bytes)) for one in stores
        ],
    }
    yield from (f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items())


def by_shard(rates: Rates, rows: float, workers: int) -> Iterator[str]:
    """The second table: a line for each number of rows a shard."""
    yield "| rows a shard | shards | files in all | bytes a shard | a worker's shards | minutes a shard | `alens info --array` | memory of `verify` |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for rows_per_shard in SHARDS:
        one = Store(rows=rows, workers=workers, rows_per_shard=rows_per_shard, rates=rates)
        cells = [
            f"{rows_per_shard:,}",
            f"{one.shards:,}",
            f"{one.files:,}",
            size(one.bytes / one.shards),
            f"{one.shards / workers:,.0f}",
            whole(rows_per_shard / rates.rows_per_second / 60),
            duration(one.every_record_s),
            size(one.shards * (rates.record_memory_bytes + rates.record_bytes)),
        ]
        yield f"| {' | '.join(cells)} |"


def tables(rates: Rates, rows: float = 1e11, workers: int = 1000) -> list[str]:
    """Both tables, as docs/scale.md has them."""
    sizes = [rows / 100, rows / 10, rows]
    return [*by_size(rates, sizes, workers, 65_536), "", *by_shard(rates, rows, workers)]


def measured(names: int = 50_000) -> dict[str, float]:
    """The rates of this machine that need no model: seconds to list a name, bytes that are hashed in a second."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(names):
            (Path(folder) / f"{number:06d}.json").touch()
        started = time.process_time()
        sorted(os.listdir(folder))  # noqa: PTH208  # as the store lists its records
        listed = time.process_time() - started
    block = bytes(256 * 2**20)
    started = time.process_time()
    hashlib.sha256(block).digest()
    return {"name_s": listed / names, "hash_bytes_per_s": len(block) / (time.process_time() - started)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e11)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rows-per-second", type=float, default=Rates.rows_per_second)
    parser.add_argument("--measure", action="store_true")
    asked = parser.parse_args()
    rates = {"rows_per_second": asked.rows_per_second}
    if asked.measure:
        rates |= measured()
    print("\n".join(tables(Rates(**rates), asked.rows, asked.workers)))


if __name__ == "__main__":
    main()
