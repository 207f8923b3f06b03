"""The rows that transferred lenses are judged on: which sequences they belong to, and where moments come from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alens import load_lenses, open_cache
from alens.evaluation.shards import JudgedText
from alens.studies.transfer.judged_rows import JudgedRows, judge_readings, judged_rows, mean_output
from alens.studies.transfer.settings import TransferSettings


def ground(lenses: Path, cache: Path, shards: tuple[int, ...]) -> JudgedRows:
    text = JudgedText(shards=shards)
    return judged_rows(
        load_lenses(lenses),
        open_cache(cache),
        text,
        TransferSettings(layers=(3,), heads=(4,), rows=100_000),
        None,
    )


def test_sequences_of_several_shards_stay_apart(demo_lenses: Path, demo_cache: Path) -> None:
    on = ground(demo_lenses, demo_cache, (5, 2))
    (sums,) = judge_readings(on, [mean_output(on, load_lenses(demo_lenses))])
    assert sums.rows_G.tolist() == [63.0] * 32  # 16 sequences a shard, without their first positions
    assert sums.next_G.tolist() == [62.0] * 32
    (alone,) = judge_readings(
        ground(demo_lenses, demo_cache, (2,)), [mean_output(on, load_lenses(demo_lenses))]
    )
    torch.testing.assert_close(sums.sums_GQC[:16], alone.sums_GQC)  # ascending


def test_moments_come_from_rows_that_nobody_is_judged_on(demo_lenses: Path, demo_cache: Path) -> None:
    on = ground(demo_lenses, demo_cache, (5, 0))
    assert on.other_shards == (1, 2, 3, 4)
    cache = open_cache(demo_cache)
    rows = np.arange(1024, 2048)
    rows = rows[cache.read("rows/position", rows) >= 1]
    z_NE = cache.z(3, rows)[:, 4].astype(np.float64)
    frame = on.frames()[3]
    assert frame.mean_HE[0].numpy() == pytest.approx(z_NE.mean(0), abs=1e-5)
    np.testing.assert_allclose(frame.covariance_HEE[0], np.cov(z_NE.T, bias=True), atol=1e-6)
    everything = ground(demo_lenses, demo_cache, tuple(range(6)))
    assert everything.other_shards == everything.shards


def test_a_mean_output_that_no_lenses_say_is_of_rows_that_nobody_is_judged_on(
    demo_lenses: Path, demo_cache: Path
) -> None:
    on = ground(demo_lenses, demo_cache, (5, 0))
    maps = mean_output(on, None).maps
    said_V = maps.logits(0, torch.zeros(1, 1))[0].log_softmax(-1)
    mean_V = open_cache(demo_cache).read("stats/output", slice(1, 5)).sum(0)
    np.testing.assert_allclose(said_V.numpy(), np.log(mean_V / mean_V.sum()), atol=1e-4)
