"""`alens cache` stopped, killed, and started twice at once: what is committed stays, and the bytes are the same."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.store.cache_reader import open_cache

from ..folders import array_hashes
from ..outcomes import assert_one_line

Options = list[str]

MANY_SHARDS = [
    *("--seq-len", "32", "--rows-per-shard", "128", "--max-rows", "6144", "--batch-size", "2"),
    *("--top-k", "4", "--tail-samples", "4", "--layers", "0,2-3", "--device", "cpu"),
]


# Stopping: exit code 75, run again to go on


def test_a_time_limit_stops_cleanly(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options, "--max-minutes", "1e-6")
    assert_one_line(outcome, 75, "stopped before anything was written", "run again")


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory, written: Callable[..., Path]) -> Path:
    """48 shards written without a break, to compare with."""
    return written(tmp_path_factory.mktemp("many") / "store", *MANY_SHARDS)


def interrupt(held_alens: Any, store: Path, number: signal.Signals) -> tuple[int, str]:
    """Starts the command and sends it a signal once two shards are committed: its exit code and stderr."""
    arguments = ("cache", "demo", "demo", store, *MANY_SHARDS)
    process = held_alens(store, "commits/000001.json", *arguments)
    process.send_signal(number)
    _, err = process.communicate(timeout=400)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_between_two_batches(
    run_alens: Any, held_alens: Any, tmp_path: Path, many_shards: Path, number: signal.Signals
) -> None:  # fmt: skip
    store = tmp_path / "store"
    code, err = interrupt(held_alens, store, number)
    assert code == 75, err
    assert err.splitlines()[-1].startswith("alens: stopped; ")
    assert "run again to go on" in err
    assert not list(store.rglob("*.partial"))
    done = len(open_cache(store).shards)
    assert 2 <= done < 48
    assert f"{128 * done:,} of this worker's 6,144 rows are committed" in err
    if number == signal.SIGTERM:
        assert run_alens("cache", "demo", "demo", store, *MANY_SHARDS).code == 0
        assert array_hashes(store) == array_hashes(many_shards)


def test_a_killed_run_goes_on_where_it_was(
    run_alens: Any, held_alens: Any, tmp_path: Path, many_shards: Path
) -> None:
    store = tmp_path / "store"
    code, _ = interrupt(held_alens, store, signal.SIGKILL)
    assert code == -signal.SIGKILL
    cache = open_cache(store)
    assert 2 <= len(cache.shards) < 48
    for shard in cache.shards:
        cache.read_shard("targets/ids", shard)
    outcome = run_alens("cache", "demo", "demo", store, *MANY_SHARDS)
    assert outcome.code == 0
    assert outcome.stdout.startswith(f"wrote {48 - len(cache.shards)} shards")
    whole = {name: sha for name, sha in array_hashes(store).items() if not name.endswith(".partial")}
    assert whole == array_hashes(many_shards)
    assert (store / "MANIFEST.json").read_bytes() == (many_shards / "MANIFEST.json").read_bytes()


# Two at once


def test_two_first_jobs_at_the_same_moment_write_one_cache(
    tmp_path: Path, run_alens: Any, small_options: Options
) -> None:
    """Neither waits for the other: both tokenise, the same plan comes out, and each writes its shards."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    command = [sys.executable, "-m", "alens", "cache", "demo", "demo", str(together), *small_options]
    jobs = [
        subprocess.Popen([*command, "--worker", f"{index}/2"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for index in range(2)
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=400)
        assert job.returncode == 0, errors
    assert (
        run_alens("cache", "demo", "demo", together, *small_options).code == 0
    )  # seals, if both thought the other would
    assert run_alens("cache", "demo", "demo", alone, *small_options).code == 0
    assert array_hashes(together) == array_hashes(alone)
    assert open_cache(together).fingerprint == open_cache(alone).fingerprint is not None
