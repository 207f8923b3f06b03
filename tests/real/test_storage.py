"""Caches of SmolLM2 on disk: computed again, stored in 8 bits, and written by a job that was killed.

Shapes: N rows, V vocabulary.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from alens import load_lenses, open_cache

from ..folders import array_hashes
from .conftest import BY_STORY, LIMIT_S, STORIES, Made, alens

pytestmark = pytest.mark.real

SMALL = (*BY_STORY, "--seq-len", "64", "--max-rows", "1024", "--rows-per-shard", "256", "--layers", "23")


@pytest.fixture(scope="session")
def few_stories(made: Made) -> Path:
    """The first stories, enough for the small caches."""

    def make(path: Path) -> None:
        pq.write_table(pq.read_table(STORIES).slice(0, 60), path)

    return made("few.parquet", make)


@pytest.fixture(scope="session")
def small_cache(smollm2: Path, few_stories: Path, made: Made) -> Path:
    """A sealed cache of layer 23, 4 shards of 256 rows, written without a break. Shared: never write to it."""
    return made("small", lambda store: alens("cache", smollm2, few_stories, store, *SMALL))


def test_deep_computes_the_same_again(real_cache: Path) -> None:
    alens("verify", real_cache, "--deep", "64")


def test_z_in_8_bits_reads_as_in_16(
    smollm2: Path, few_stories: Path, small_cache: Path, real_lenses: Path, tmp_path: Path
) -> None:
    alens("cache", smollm2, few_stories, tmp_path / "int8", *SMALL, "--z-dtype", "int8")
    rows = np.arange(256)
    layer = load_lenses(real_lenses).layer(23)
    log_probs = []
    for store in (small_cache, tmp_path / "int8"):
        z_NHE = torch.from_numpy(open_cache(store).z(23, rows)).float()
        log_probs.append(layer.logits(z_NHE).log_softmax(-1))
    exact_NHV, coarse_NHV = log_probs
    kl_H = (exact_NHV.exp() * (exact_NHV - coarse_NHV)).sum(-1).mean(0)
    assert float(kl_H.min()) > 0 and float(kl_H.max()) < 5e-3
    sizes = [
        open_cache(store).spec("sites/attn.z/23").row_bytes for store in (small_cache, tmp_path / "int8")
    ]
    assert sizes[1] * 2 == sizes[0]


def test_a_killed_job_goes_on_to_the_same_bytes(
    smollm2: Path, few_stories: Path, small_cache: Path, tmp_path: Path
) -> None:
    store = tmp_path / "killed"
    arguments = [str(word) for word in ("cache", smollm2, few_stories, store, *SMALL)]
    job = subprocess.Popen(
        [sys.executable, "-m", "alens", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + LIMIT_S
    while not list(store.glob("commits/[0-9]*.json")):
        assert job.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert not open_cache(store).sealed
    alens(*arguments)
    assert open_cache(store).sealed
    assert array_hashes(store) == array_hashes(small_cache)
