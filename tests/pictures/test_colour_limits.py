"""The ends of scales of colours: one odd number does not paint all others alike."""

import numpy as np
import pytest

from alens.pictures import colour_limits


def test_one_odd_number_lies_beyond_the_scale() -> None:
    numbers_N = np.array([*np.linspace(2.0, 4.0, 101), 24.87])
    low, high = ends = colour_limits.limits(numbers_N)
    assert low == 2.0 and 4.0 < high < 8.0
    assert [value for value in numbers_N if colour_limits.beyond(value, ends)] == [24.87]


def test_numbers_that_lie_together_are_all_on_the_scale() -> None:
    numbers_N = np.linspace(-1.0, 3.0, 50)
    assert colour_limits.limits(numbers_N) == (-1.0, 3.0)
    assert colour_limits.limits(numbers_N, 0.0) == (-3.0, 3.0)


def test_around_a_centre_both_sides_reach_as_far() -> None:
    numbers_N = np.array([*np.linspace(-1.0, 1.0, 101), -21.7])
    low, high = ends = colour_limits.limits(numbers_N, 0.0)
    assert -low == high < 3.0 and colour_limits.beyond(-21.7, ends)


def test_many_large_numbers_are_no_outliers() -> None:
    """As the effects of heads: most are near 0, a tenth is not."""
    numbers_N = np.array([*np.linspace(-0.02, 0.02, 243), *np.linspace(0.2, 2.0, 27)])
    ends = colour_limits.limits(numbers_N, 0.0)
    assert sum(colour_limits.beyond(value, ends) for value in numbers_N) == 5  # 2 %
    assert ends[1] > 1.6


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], (0.0, 1.0)), ([2.0, 2.0], (2.0, 3.0)), ([0.0] * 20 + [5.0], (0.0, 5.0)), ([1.5], (1.5, 2.5))],
)
def test_few_or_equal_numbers_have_a_scale(numbers: list[float], expected: tuple[float, float]) -> None:
    ends = colour_limits.limits(np.array(numbers))
    assert ends == expected and not any(colour_limits.beyond(value, ends) for value in numbers)


def test_rounding_puts_nothing_beyond() -> None:
    assert not colour_limits.beyond(0.1 + 0.2, (0.0, 0.3)) and colour_limits.beyond(0.3001, (0.0, 0.3))
