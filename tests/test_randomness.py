import numpy as np
import pytest

from alens import randomness


def test_a_permutation_holds_every_number_once() -> None:
    assert sorted(randomness.permutation(1000, 7, randomness.ROW_ORDER, 3)) == list(range(1000))


def test_permutations_are_the_same_on_every_machine() -> None:
    """These numbers are in caches: they must never change."""
    assert randomness.permutation(8, 0, randomness.SEQUENCE_ORDER).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert randomness.row_uniforms(5, 1, 2, 0, randomness.TAIL_SAMPLES).tolist() == [
        [0.4473950909276464, 0.6903258363695782]
    ]


@pytest.mark.parametrize(("seed", "purpose", "number"), [(1, 1, 0), (0, 2, 0), (0, 1, 1)])
def test_seed_purpose_and_number_each_give_another_permutation(seed: int, purpose: int, number: int) -> None:
    first = randomness.permutation(100, 0, 1, 0)
    assert not np.array_equal(first, randomness.permutation(100, seed, purpose, number))


@pytest.mark.parametrize("draws", [1, 3, 4, 5, 64])
def test_a_rows_uniforms_do_not_depend_on_the_batch(draws: int) -> None:
    whole = randomness.row_uniforms(0, 100, draws, 3, randomness.TAIL_SAMPLES)
    part = randomness.row_uniforms(37, 20, draws, 3, randomness.TAIL_SAMPLES)
    assert whole.shape == (100, draws)
    np.testing.assert_array_equal(whole[37:57], part)


def test_rows_have_uniforms_of_their_own() -> None:
    uniforms = randomness.row_uniforms(0, 1000, 5, 0, randomness.TAIL_SAMPLES)
    assert len(np.unique(uniforms)) == uniforms.size


def test_uniforms_are_uniform_below_1() -> None:
    uniforms = randomness.row_uniforms(0, 20_000, 5, 0, randomness.TAIL_SAMPLES).ravel()
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    counts, _ = np.histogram(uniforms, bins=50, range=(0, 1))
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 49 + 5 * np.sqrt(2 * 49)


@pytest.mark.parametrize("draws", [1, 3, 64])
def test_scattered_uniforms_of_a_row_depend_on_its_number_seed_and_purpose_alone(draws: int) -> None:
    whole = randomness.scattered_uniforms(np.arange(100), draws, 3, 4)
    some = np.array([70, 2, 2, 99])
    assert whole.shape == (100, draws) and len(np.unique(whole)) == whole.size
    np.testing.assert_array_equal(randomness.scattered_uniforms(some, draws, 3, 4), whole[some])
    assert not np.isin(randomness.scattered_uniforms(some, draws, 4, 4), whole).any()
    assert not np.isin(randomness.scattered_uniforms(some, draws, 3, 5), whole).any()


@pytest.mark.parametrize("first", [0, 10**12])
def test_scattered_uniforms_are_uniform_below_1(first: int) -> None:
    uniforms = randomness.scattered_uniforms(first + np.arange(20_000), 5, 0, randomness.NARROWED_TAIL)
    assert uniforms.min() >= 0 and uniforms.max() < 1
    counts, _ = np.histogram(uniforms.ravel(), bins=50, range=(0, 1))
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 49 + 5 * np.sqrt(2 * 49)
    assert np.abs(np.corrcoef(uniforms.T) - np.eye(5)).max() < 5 / np.sqrt(20_000)
    assert abs(np.corrcoef(uniforms[:-1, 0], uniforms[1:, 0])[0, 1]) < 5 / np.sqrt(20_000)


def test_a_generator_is_of_its_seed_purpose_and_numbers() -> None:
    """A seed with a number added was the next seed's generator for the number before."""
    draws = {
        (seed, purpose, number): randomness.generator(seed, purpose, number).random()
        for seed in range(3)
        for purpose in (randomness.DONORS, randomness.RANDOM_BASIS)
        for number in range(4)
    }
    assert len(set(draws.values())) == len(draws)
    assert randomness.generator(1, 2, 3).random() == randomness.generator(1, 2, 3).random()


def test_a_derived_seed_is_one_that_a_fit_takes() -> None:
    seeds = [randomness.derived_seed(seed, randomness.OTHER_ORDER) for seed in (0, 1, 2**63 - 1)]
    assert len(set(seeds)) == 3 and all(0 <= seed < 2**63 for seed in seeds)
    assert randomness.derived_seed(0, 1, 2) != randomness.derived_seed(0, 1, 3)
