"""Numbers of any size -> the ends of a scale of colours, so that one odd number does not paint all others alike.

In: the numbers of a grid. Out: the lowest and the highest number of the scale. Numbers beyond them have the colour of the
nearer end, and a mark. They are far outliers by Tukey's fences ("Exploratory Data Analysis", 1977), three times the width of
the middle half of the numbers from its ends, and few: effects of heads have many large numbers, which belong to the scale. The
pages of readings draw with the same limits (page_parts/colours.js).
Shapes: N numbers.
"""

import numpy as np
import numpy.typing as npt

FAR = 3.0
"""How far a scale may reach beyond the middle half of the numbers, in widths of that."""

FEW, LEAST_CELLS = 0.02, 12
"""The share of the numbers that may lie beyond either end, but at least one; and none of fewer numbers than this."""


def limits(numbers_N: npt.NDArray[np.float64], centre: float | None = None) -> tuple[float, float]:
    """The ends of the scale of finite numbers (N,) float64; with a `centre`, both ends are equally far from it.

    Where all numbers but the few beyond are equal, none is beyond. Without numbers the scale is 0 to 1.
    """
    if not numbers_N.size:
        return 0.0, 1.0
    if centre is not None:
        reach = _fences(np.abs(numbers_N - centre))[1] or 1.0
        return centre - reach, centre + reach
    low, high = _fences(numbers_N)
    return low, high if high > low else low + 1.0


def beyond(value: float, ends: tuple[float, float]) -> bool:
    """Whether a number lies beyond the ends of its scale, by more than rounding."""
    slack = 1e-9 * max(1.0, *map(abs, ends))
    return not ends[0] - slack <= value <= ends[1] + slack


def _fences(numbers_N: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The lowest and the highest number, but no far outlier."""
    sorted_N = np.sort(numbers_N)
    few = 0 if sorted_N.size < LEAST_CELLS else max(1, int(FEW * sorted_N.size))
    lower, upper = np.quantile(sorted_N, [0.25, 0.75])
    reach = FAR * (upper - lower)
    low = max(sorted_N[0], min(lower - reach, sorted_N[few]))
    high = min(sorted_N[-1], max(upper + reach, sorted_N[-1 - few]))
    ends = (low, high) if high > low else (sorted_N[0], sorted_N[-1])
    return float(ends[0]), float(ends[1])
