"""Tokens, skeleton and plan are made once; what is lost of them is made again, and only as it was."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from alens import CacheRequest, demo, write_cache
from alens.cache import prepare
from alens.errors import RequestError, RunError, StoppedError
from alens.job.progress import Progress
from alens.job.worker import Worker
from alens.store.cache_reader import open_cache

from ..folders import array_hashes

Request = Callable[..., CacheRequest]
Copy = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "POLL_S", 0.02)


def hold(store: Path, pid: int) -> Path:
    store.mkdir()
    claim = store / "plan.claim"
    claim.write_text(json.dumps({"host": socket.gethostname(), "pid": pid, "token": "theirs"}))
    return claim


def shard_state(store: Path) -> dict[str, tuple[int, int]]:
    files = [p for p in (store / "arrays.zarr").rglob("c.*") if "model" not in p.parts]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


JOB = """
import json, sys
from pathlib import Path
import torch, transformer_lens, zarr
from alens import CacheRequest, write_cache
from alens.job.worker import Worker
from alens.errors import AlensError
from alens.store import typed
from alens.store.schema import CacheSettings

store, worker, settings = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
request = CacheRequest(
    model="demo", corpus="demo", store=Path(store), device="cpu", worker=Worker(**worker), settings=typed.parse(CacheSettings, settings, "settings", "")
)
stages = set()
print("ready", flush=True)
sys.stdin.readline()
try:
    done, error = write_cache(request, report=lambda p: stages.add(p.stage)).shards_written, None
except AlensError as refused:
    done, error = None, f"{type(refused).__name__}: {refused}"
print(json.dumps({"stages": sorted(stages), "done": done, "error": error}))
"""
"""A job that has imported all it needs and waits until it is told to start, so that several start at once."""


def together(*requests: CacheRequest) -> list[dict[str, Any]]:
    """Run all jobs at once, each in a process: the stages that each reported, and how it ended."""
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                JOB,
                str(request.store),
                json.dumps(dataclasses.asdict(request.worker)),
                json.dumps(dataclasses.asdict(request.settings)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for request in requests
    ]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("\n")
        job.stdin.flush()
    return [json.loads(job.communicate(timeout=400)[0]) for job in jobs]


def test_of_jobs_that_start_together_one_tokenises(
    tmp_path: Path, small_request: Request, small_cache: Path
) -> None:
    store = tmp_path / "store"
    outcomes = together(*(small_request(store, worker=Worker(index=index, count=3)) for index in range(3)))
    assert [outcome["done"] for outcome in outcomes] == [2, 2, 2]
    assert sum("tokenise" in outcome["stages"] for outcome in outcomes) == 1
    assert not (store / "plan.claim").exists()
    assert array_hashes(store) == array_hashes(small_cache)
    assert open_cache(store).sealed


@pytest.mark.slow
def test_of_jobs_with_different_settings_one_has_its_way(tmp_path: Path, small_request: Request) -> None:
    store = tmp_path / "store"
    outcomes = together(*(small_request(store, settings={"seed": seed}) for seed in (0, 5, 0)))
    refused = [outcome["error"] for outcome in outcomes if outcome["error"]]
    assert refused
    for error in refused:
        assert error.startswith("RequestError: ")
        assert "holds another plan: seed is" in error
    cache = open_cache(store)
    assert cache.sealed
    assert len(cache.tokens) == 24


def test_a_job_waits_for_the_one_that_makes_the_plan(tmp_path: Path, small_request: Request) -> None:
    store = tmp_path / "store"
    claim = hold(store, os.getpid())
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        if progress.stage == "wait":
            seen.append(progress)
            assert sorted(p.name for p in store.iterdir()) == ["plan.claim"]
            if len(seen) == 3:
                claim.unlink()

    assert write_cache(small_request(store), report=report).cache.sealed
    assert len(seen) == 3
    assert f"process {os.getpid()} on {socket.gethostname()}" in seen[0].note


def test_waiting_can_be_stopped(tmp_path: Path, small_request: Request) -> None:
    claim = hold(tmp_path / "store", os.getpid())
    seen: list[str] = []
    with pytest.raises(StoppedError, match=r"^stopped while waiting for process \d+ on .* to make the plan"):
        write_cache(
            small_request(tmp_path / "store"),
            report=lambda progress: seen.append(progress.stage),
            should_stop=lambda: seen.count("wait") > 1,
        )
    assert seen[-2:] == ["wait", "wait"] and seen.count("wait") == 2
    assert claim.exists()


def test_the_claim_of_a_dead_job_is_taken_over(tmp_path: Path, small_request: Request) -> None:
    hold(tmp_path / "store", 2**31 - 1)  # Linux gives numbers below 2**22
    assert write_cache(small_request(tmp_path / "store")).cache.sealed
    assert not (tmp_path / "store/plan.claim").exists()


@pytest.mark.parametrize(
    "lost",
    [
        "tokens.npy",
        "commits/model.json",
        "arrays.zarr/zarr.json",
        "arrays.zarr/targets/ids/zarr.json",
        "arrays.zarr/model/W_U/c.0.0",
        "plan.json",
    ],
)
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_is_lost_is_made_anew_and_no_shard_is_touched(
    lost: str, how: str, small_cache: Path, copy_of: Copy, small_request: Request
) -> None:
    store = copy_of(small_cache)
    file = store / lost
    if how == "gone":
        file.unlink()
    elif lost == "plan.json":
        pytest.skip("a plan that is damaged is an error: `alens verify --repair` removes it")
    else:
        file.write_bytes(file.read_bytes()[:-1])
    before = shard_state(store)
    summary = write_cache(small_request(store))
    assert (summary.shards_written, summary.cache.sealed) == (0, True)
    assert shard_state(store) == before
    assert array_hashes(store) == array_hashes(small_cache)
    assert open_cache(store).plan.identity == open_cache(small_cache).plan.identity


def test_without_its_plan_a_cache_is_not_given_to_other_settings(
    small_cache: Path, copy_of: Copy, small_request: Request
) -> None:
    store = copy_of(small_cache)
    (store / "plan.json").unlink()
    before = shard_state(store)
    with pytest.raises(RequestError, match=r"holds shards of plan [0-9a-f]{12}, .* ask for the same"):
        write_cache(small_request(store, settings={"top_k": 5}))
    assert shard_state(store) == before
    assert write_cache(small_request(store)).shards_written == 0


def test_tokens_that_cannot_be_made_again_are_an_error(
    tmp_path: Path, small_cache: Path, copy_of: Copy, small_request: Request
) -> None:
    """The text has the size that the plan says, but other words."""
    store = copy_of(small_cache)
    (store / "tokens.npy").unlink()
    table = pq.read_table(demo.CORPUS)
    upper = [[text.upper() for text in table["text"].to_pylist()]]
    corpus = tmp_path / "other.parquet"
    pq.write_table(table.set_column(table.column_names.index("text"), "text", upper), corpus)
    plan = open_cache(store).plan
    file = dataclasses.replace(plan.corpus.files[0], bytes=corpus.stat().st_size)
    plan = dataclasses.replace(plan, corpus=dataclasses.replace(plan.corpus, files=(file,)))
    (store / "plan.json").write_bytes(plan.to_json())
    with pytest.raises(RunError, match=r"does not give the same tokens any more"):
        write_cache(small_request(store, corpus=str(corpus)))
    assert not (store / "tokens.npy").exists()
