"""Which documents are held out, and how many sequences each side gives."""

import dataclasses

import numpy as np
import pytest

from alens.cache.held_out_documents import divide, draw, held_out_shards
from alens.store.schema import CacheSettings

SETTINGS = CacheSettings(seq_len=64, rows_per_shard=256)
A_SHARD = 4


@pytest.mark.parametrize(
    ("num_tokens", "max_rows", "kept", "left_out"),
    [
        (10 * 64 + 63, None, 8, 2),
        (10 * 64 + 63, 8 * 64, 8, 0),
        (10 * 64 + 63, 9 * 64 + 5, 8, 0),
        (10 * 64 + 63, 12 * 64, 8, 2),
        (3 * 64, None, 0, 3),
    ],
)
def test_sequences_that_fill_shards(num_tokens: int, max_rows: int | None, kept: int, left_out: int) -> None:
    settings = dataclasses.replace(SETTINGS, max_rows=max_rows)
    division = divide(np.array([num_tokens]), settings, documents_known=False)
    assert (division.sequences, division.left_out, division.held_out_sequences) == (kept, left_out, 0)
    assert not division.held_out_D.any()


@pytest.mark.parametrize(("shards", "held_out"), [(1, 0), (2, 1), (8, 1), (19, 1), (20, 2), (200, 20)])
def test_a_tenth_of_the_shards_at_most_and_one_at_least(shards: int, held_out: int) -> None:
    assert held_out_shards(shards) == held_out


@pytest.mark.parametrize("num_documents", [2, 3, 7, 26, 1000])
@pytest.mark.parametrize("num_shards", [2, 3, 8, 40])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_sides_have_whole_shards_of_their_own_documents(
    num_documents: int, num_shards: int, cut: bool, seed: int
) -> None:
    """Texts of a few documents and of many, with equal lengths and with very different ones."""
    random = np.random.default_rng(num_documents)
    lengths_D = random.pareto(1.5, num_documents) + 0.3
    lengths_D = (lengths_D / lengths_D.sum() * num_shards * 256 * (2.5 if cut else 1.05)).astype(np.int64) + 1
    settings = dataclasses.replace(SETTINGS, max_rows=num_shards * 256 if cut else None, seed=seed)
    division = divide(lengths_D, settings, documents_known=True)
    held_out, train = int(lengths_D[division.held_out_D].sum()), int(lengths_D[~division.held_out_D].sum())
    assert division.held_out_sequences % A_SHARD == division.train_sequences % A_SHARD == 0
    assert division.held_out_sequences <= held_out // 64 and division.train_sequences <= train // 64
    assert division.train_sequences > 0
    assert (division.held_out_sequences > 0) == bool(division.held_out_D.any())
    if cut:
        assert division.sequences <= num_shards * A_SHARD and division.left_out == 0
        if division.held_out_D.any():
            assert division.held_out_sequences <= max(A_SHARD, num_shards * A_SHARD // 10)
    else:
        assert division.sequences + division.left_out == held_out // 64 + train // 64


def test_many_documents_give_a_tenth() -> None:
    lengths_D = np.random.default_rng(0).integers(10, 400, 5000)
    division = divide(lengths_D, SETTINGS, documents_known=True)
    share = division.held_out_sequences / division.sequences
    assert 0.095 < share < 0.105
    assert lengths_D[division.held_out_D].sum() / lengths_D.sum() == pytest.approx(0.1, abs=0.005)


def test_two_documents_at_least_are_held_out_where_they_fit() -> None:
    """One document would fill a shard, and would stand for all."""
    lengths_D = np.array([64 * 40] + [64 * 4] * 10)
    for seed in range(5):
        division = divide(lengths_D, dataclasses.replace(SETTINGS, seed=seed), documents_known=True)
        assert division.held_out_D.sum() >= 1
        short = np.array([64 * 40] + [64 * 2] * 20)
        division = divide(short, dataclasses.replace(SETTINGS, seed=seed), documents_known=True)
        assert division.held_out_D.sum() >= 2


@pytest.mark.parametrize("lengths", [[5000], [10_000, 5, 7], [0, 5000]])
def test_a_document_that_cannot_be_spared_is_trained_on(lengths: list[int]) -> None:
    division = divide(np.array(lengths), SETTINGS, documents_known=True)
    assert not division.held_out_D.any() and division.held_out_sequences == 0
    assert division.train_sequences == sum(lengths) // 256 * A_SHARD


def test_a_long_document_is_held_out_only_where_no_other_does() -> None:
    drawn = draw(np.array([900, 50, 60, 900]), wanted=100, most=1500, seed=0)
    assert drawn.tolist() == [False, True, True, False]
    drawn = draw(np.array([900, 50, 800, 900]), wanted=100, most=1500, seed=0)
    assert drawn[2] and not drawn[0] and not drawn[3]
    assert not draw(np.array([900, 50, 800, 900]), wanted=100, most=799, seed=0).any()
