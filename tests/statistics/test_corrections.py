"""Corrections for the number of heads, against numbers worked out by hand."""

import numpy as np
import pytest

from alens.statistics.corrections import corrected, smallest_corrected


def test_the_smallest_corrected_p_is_that_of_one_head_among_silent_ones() -> None:
    p_F = np.array([0.001, 1.0, 1.0, 1.0])
    for correction in ("holm", "bonferroni", "bh", "by", "none"):
        least = smallest_corrected(0.001, 4, correction)
        assert corrected(p_F, correction)[0] == pytest.approx(least)
    assert smallest_corrected(0.001, 4, "max-t") == 0.001


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("none", [0.01, 0.04, 0.03, 0.5]),
        ("bonferroni", [0.04, 0.16, 0.12, 1.0]),
        ("holm", [0.04, 0.09, 0.09, 0.5]),
        ("bh", [0.04, 0.16 / 3, 0.16 / 3, 0.5]),
        ("by", [0.04 * 25 / 12, 0.16 / 3 * 25 / 12, 0.16 / 3 * 25 / 12, 1.0]),
    ],
)
def test_corrections_are_as_in_the_books(correction: str, expected: list[float]) -> None:
    assert corrected(np.array([0.01, 0.04, 0.03, 0.5]), correction) == pytest.approx(expected)
