"""Targets with fewer entries: as in a cache with a smaller k and fewer samples."""

import numpy as np
import pytest

from alens.errors import RequestError
from alens.rows.narrow import Narrow
from alens.store.cache_reader import Targets

V, K, M = 12, 5, 3
PROBS = np.array([0.3, 0.2, 0.12, 0.08, 0.06, *[0.24 / 7] * 7])


def cached(num_rows: int, seed: int = 0) -> Targets:
    """Rows of one distribution: its top K, and samples of the others."""
    random = np.random.default_rng(seed)
    return Targets(
        ids_NK=np.tile(np.arange(K, dtype=np.uint16), (num_rows, 1)),
        log_probs_NK=np.tile(np.log(PROBS[:K]).astype(np.float16), (num_rows, 1)),
        logsumexp_N=np.zeros(num_rows, np.float32),
        entropy_N=np.ones(num_rows, np.float32),
        tail_ids_NM=random.integers(K, V, (num_rows, M)).astype(np.uint16),
    )


def narrowed(targets: Targets, k: int, m: int, rows: np.ndarray | None = None, seed: int = 0) -> Targets:
    rows_N = np.arange(len(targets.ids_NK)) if rows is None else rows
    return Narrow(top_k=k, tail_samples=m, seed=seed).apply(targets, rows_N)


@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 3), (5, 2), (4, 1)])
def test_there_are_as_many_entries_as_asked_for_and_none_twice(k: int, m: int) -> None:
    narrower = narrowed(cached(50), k, m)
    assert narrower.ids_NK.shape == narrower.log_probs_NK.shape == (50, k)
    assert narrower.tail_ids_NM.shape == (50, m)
    assert narrower.tail_ids_NM.min() >= k
    assert narrower.entropy_N.shape == (50,)


@pytest.mark.parametrize("k", [1, 3])
def test_samples_have_the_distribution_of_everything_outside_the_smaller_k(k: int) -> None:
    narrower = narrowed(cached(20_000), k, M)
    counts_V = np.bincount(narrower.tail_ids_NM.ravel(), minlength=V)
    expected_V = np.where(np.arange(V) < k, 0, PROBS) / PROBS[k:].sum() * counts_V.sum()
    assert counts_V[:k].sum() == 0
    chi_square = ((counts_V - expected_V)[k:] ** 2 / expected_V[k:]).sum()
    degrees = V - k - 1
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


def test_samples_of_a_row_are_independent() -> None:
    draws_NM = narrowed(cached(20_000), 1, 2).tail_ids_NM.astype(float)
    assert abs(np.corrcoef(draws_NM.T)[0, 1]) < 5 / np.sqrt(20_000)


def test_what_was_cached_is_given_back_as_it_is() -> None:
    targets = cached(10)
    assert narrowed(targets, K, M) is targets


def test_with_all_of_the_top_the_cached_samples_are_kept() -> None:
    targets = cached(10)
    np.testing.assert_array_equal(narrowed(targets, K, 2).tail_ids_NM, targets.tail_ids_NM[:, :2])


def test_draws_of_a_row_depend_on_its_number_and_the_seed_alone() -> None:
    targets = cached(300)
    whole = narrowed(targets, 2, 2).tail_ids_NM
    some = np.array([250, 3, 77])
    part = Targets(**{name: values[some] for name, values in vars(targets).items()})
    np.testing.assert_array_equal(narrowed(part, 2, 2, some).tail_ids_NM, whole[some])
    assert not np.array_equal(narrowed(targets, 2, 2, seed=1).tail_ids_NM, whole)
    assert not np.array_equal(narrowed(targets, 2, 2, np.arange(300) + 1).tail_ids_NM, whole)


@pytest.mark.parametrize(("k", "m", "name"), [(6, 3, "top_k is 6"), (5, 4, "tail_samples is 4"), (0, 1, "0")])
def test_more_than_was_cached_is_refused(k: int, m: int, name: str) -> None:
    with pytest.raises(RequestError, match=rf"{name}.*: the cache has targets with \d, take 1 to \d"):
        Narrow(top_k=k, tail_samples=m, seed=0).check(K, M)
