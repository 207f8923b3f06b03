"""Copies between the GPU and the CPU while the GPU is late: what arrives is what was sent, and nobody waits for it.

`late` keeps the GPU busy, so that a copy which was begun is still to be made when the CPU goes on.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alens import open_cache
from alens.cache.row_collector import BatchArrays, RowCollector
from alens.heads import Heads
from alens.machine.device import send
from alens.rows.columns import RowReader

pytestmark = pytest.mark.gpu

CYCLES = 200_000_000
"""A tenth of a second of a GPU."""


@pytest.fixture
def late(gpu: torch.device) -> Callable[[], None]:
    """Gives the GPU something to do before what comes next."""
    return (lambda: torch.cuda._sleep(CYCLES)) if gpu.type == "cuda" else (lambda: None)


@pytest.fixture
def no_waits(gpu: torch.device) -> Iterator[None]:
    """A wait for the GPU is an error in this test."""
    if gpu.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    yield
    if gpu.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


def test_rows_that_come_late_go_whole_to_their_places(gpu: torch.device, late: Callable[[], None]) -> None:
    placed: list[npt.NDArray[Any]] = []
    checked: list[bool] = []
    collector = RowCollector(
        gpu,
        None,
        lambda _, values, __: placed.append(values.copy()),
        lambda finite: checked.append(bool(finite)),
    )
    for number in range(6):
        late()
        values = torch.full((1000, 12, 64), float(number), device=gpu).half()
        largest, finite = {"z of layer 0": values.max()}, torch.isfinite(values).all()
        collector.put(BatchArrays(values={"z": values}, largest=largest, finite=finite, at_N=np.arange(1000)))
        values.fill_(-1)  # later on the same stream: what was copied before counts
        if gpu.type == "cuda":
            assert len(placed) == number  # the batch before, and not this one
    collector.finish()
    assert checked == [True] * 6
    assert [(float(values.min()), float(values.max())) for values in placed] == [(n, n) for n in range(6)]


def test_what_is_sent_late_is_what_it_was(gpu: torch.device, late: Callable[[], None]) -> None:
    """Pinned memory of one copy is not taken for the next before the copy is made."""
    late()
    sent = []
    for number in range(20):
        values = np.full((4096, 64), number, np.float32)
        there = send(values, gpu)
        sent.append(there.clone() if gpu.type == "cpu" else there)  # on the CPU nothing is copied
        values[:] = -1
    assert [(float(there.min()), float(there.max())) for there in sent] == [(n, n) for n in range(20)]


def test_a_batch_is_made_without_waiting(
    gpu: torch.device, demo_cache: Path, late: Callable[[], None], no_waits: None
) -> None:
    cache = open_cache(demo_cache)
    heads = Heads.grid((0, 2), range(cache.plan.model.n_heads))
    reader = RowReader(cache, heads, "compressed", 1, gpu)
    columns = reader.shard(0, stop=128)
    late()
    assert reader.z(columns, 2).device == gpu
    teacher = reader.teacher(columns)
    assert len(teacher.entropies) == 128
