"""The target of input relevance: the tokens that a head could look at."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.fit.objectives.input_relevance import InputRelevance
from alens.fit.objectives.objective import TargetRows
from alens.heads import Heads
from alens.rows.columns import RowReader
from alens.rows.teacher import CompressedTeacher
from alens.store.cache_reader import Cache

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def target_of_cache(demo_cache: Path) -> tuple[Cache, list[tuple[int, int]], CompressedTeacher]:
    """Rows of a shard, as (sequence, position), and their target."""
    cache = open_cache(demo_cache)
    reader = RowReader(cache, Heads.grid((0,), (0,)), "compressed", 1, CPU, columns=InputRelevance.columns)
    columns = reader.shard(2).rows(100, 300)
    places = [columns.by_name[name].tolist() for name in InputRelevance.columns]
    rows = TargetRows(cache=cache, columns=columns, teacher=reader.teacher(columns), device=CPU)
    target = InputRelevance().target(rows)
    assert isinstance(target, CompressedTeacher)
    return cache, list(zip(*places, strict=True)), target


def counted(cache: Cache, sequence: int, position: int) -> Counter[int]:
    return Counter(cache.tokens[sequence, : position + 1].tolist())


def test_it_is_the_plain_count_of_the_tokens_so_far(target_of_cache) -> None:
    cache, places, target = target_of_cache
    for row, (sequence, position) in enumerate(places):
        dense_V = torch.zeros(cache.plan.model.d_vocab).index_add_(
            0, target.ids_NJ[row], target.weights_NJ[row]
        )
        expected_V = torch.zeros_like(dense_V)
        for token, times in counted(cache, sequence, position).items():
            expected_V[token] = times / (position + 1)
        torch.testing.assert_close(dense_V, expected_V, rtol=0, atol=1e-6)


def test_tokens_that_come_later_have_no_weight(target_of_cache) -> None:
    _, places, target = target_of_cache
    for row, (_, position) in enumerate(places):
        assert bool((target.weights_NJ[row, position + 1 :] == 0).all())


def test_its_entropy_is_that_of_the_count(target_of_cache) -> None:
    cache, places, target = target_of_cache
    expected = []
    for sequence, position in places:
        share = np.array(list(counted(cache, sequence, position).values())) / (position + 1)
        expected.append(float(-(share * np.log(share)).sum()))
    np.testing.assert_allclose(target.entropies, expected, atol=1e-5)
