"""Estimates of small caches of the demo, and what a real cache of the same request has on disk."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import CacheRequest, write_cache
from alens.job.worker import Worker
from alens.planning.estimate_cache import estimate_cache
from alens.planning.result import Estimate
from alens.store.schema import CacheSettings

SMALL = CacheSettings(
    seq_len=64, rows_per_shard=512, max_rows=2048, batch_size=8, top_k=8, tail_samples=8, layers=(0, 2)
)
PROBE_S = 0.05


@pytest.fixture(autouse=True)
def every_plan_is_quick(small_writes: None) -> None:
    """Every test here writes little to the disk."""


@pytest.fixture(scope="session")
def request_for() -> Callable[..., CacheRequest]:
    """A request for the demo with SMALL settings; `settings` are changes to them."""

    def make(store: Path, settings: dict[str, Any] | None = None, **changes: Any) -> CacheRequest:
        given = {"model": "demo", "corpus": "demo", "device": "cpu", **changes}
        return CacheRequest(store=store, settings=dataclasses.replace(SMALL, **(settings or {})), **given)

    return make


@pytest.fixture(scope="session")
def estimated() -> Callable[..., Estimate]:
    """The estimate of a request, in its own store."""

    def make(request: CacheRequest, **changes: Any) -> Estimate:
        return estimate_cache(request, **{"store": request.store, "probe_s": PROBE_S, **changes})

    return make


@pytest.fixture(scope="session")
def half_written(tmp_path_factory: pytest.TempPathFactory, request_for: Any) -> Path:
    """A cache with 4 shards planned and shards 0 and 2 committed. Shared: never write to it, copy it."""
    store = tmp_path_factory.mktemp("planning") / "half-written"
    write_cache(request_for(store, worker=Worker(index=0, count=2)))
    return store
