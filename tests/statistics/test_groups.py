"""What intervals are over: documents where they are known, else sequences."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from alens.statistics.groups import DOCUMENTS, SEQUENCES, Groups, said
from alens.store.cache_reader import Cache


def cache(documents: list[int] | None) -> Cache:
    settings = SimpleNamespace(sequences_per_shard=4)
    known: Any = None if documents is None else np.array(documents)
    return cast(Cache, SimpleNamespace(documents=known, plan=SimpleNamespace(settings=settings)))


def test_sequences_of_a_document_are_one_group() -> None:
    groups = Groups.of_shards(cache([7, 7, 2, 2, 9, 9, 9, 9, 2, 7, 3, 3]), (0, 2))
    assert (groups.over, groups.count) == (DOCUMENTS, 3)
    numbers = groups.numbers(np.array([0, 1, 9, 2, 3, 8, 10, 11], dtype=np.uint32))
    assert numbers.tolist() == [2, 2, 2, 0, 0, 0, 1, 1]
    assert groups.sequences == 8


def test_without_documents_each_sequence_is_a_group() -> None:
    groups = Groups.of_shards(cache(None), (2, 0))
    assert (groups.over, groups.count, groups.sequences) == (SEQUENCES, 8, 0)
    assert groups.numbers(np.array([8, 0, 8, 11])).tolist() == [4, 0, 4, 7]
    assert groups.sequences == 3


def test_of_one_document_sequences_are_drawn() -> None:
    assert Groups.of_shards(cache([5] * 4), (0,)).over == SEQUENCES
    assert Groups.of(cache([5, 5, 6, 5]), np.array([3, 0])).over == SEQUENCES
    some = Groups.of(cache([5, 5, 6, 5]), np.array([3, 2]))
    assert some.over == DOCUMENTS and some.numbers(np.array([2, 3])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("over", "count", "text"),
    [
        (DOCUMENTS, 12, "95 % intervals over 12 documents"),
        (SEQUENCES, 1234, "95 % intervals over 1,234 sequences"),
        (DOCUMENTS, 4, "95 % intervals over 4 documents (fewer than 5: rough)"),
        (SEQUENCES, 1, "no intervals: a single sequence"),
    ],
)
def test_the_foot_of_a_table_says_which(over: str, count: int, text: str) -> None:
    assert said(over, count) == text
