"""Smaller forms of z agree with their definitions, in exact arithmetic over every float16."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alens.store import encoding

Float16 = npt.NDArray[np.float16]

LARGEST = 65_504.0
SMALLEST = 2.0**-24
NOT_NEGATIVE: Float16 = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
"""All finite float16 numbers, ascending. As multiples of the smallest they are whole numbers."""

every_keep_bits = pytest.mark.parametrize("keep_bits", range(10))
finite = st.floats(width=16, allow_nan=False, allow_infinity=False)
heads = arrays(
    np.float16, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5)), elements=finite
)


def storable(keep_bits: int) -> Float16:
    return NOT_NEGATIVE[NOT_NEGATIVE.astype(np.float64) < encoding.limit(keep_bits)]


def whole(values: Float16) -> npt.NDArray[np.int64]:
    return (values.astype(np.float64) / SMALLEST).astype(np.int64)


def direct(values: Float16, keep_bits: int) -> Float16:
    """The nearest float16 whose last bits are zero. Of two that are equally near, the one whose last kept bit is zero."""
    dropped = 10 - keep_bits
    below = values.view(np.uint16) >> dropped << dropped
    above = below + (1 << dropped)  # the next binade follows on, infinity on the largest
    low, high = whole(below.view(np.float16)), whole(np.minimum(above, 0x7BFF).view(np.float16))
    high = np.where(above == 0x7C00, 2**40, high)
    twice, middle = 2 * whole(values), low + high
    down = (twice < middle) | ((twice == middle) & (below >> dropped & 1 == 0))
    return np.where(down, below, above).astype(np.uint16).view(np.float16)


# Rounded mantissas


@every_keep_bits
def test_every_value_is_rounded_to_the_nearest_to_even(keep_bits: int) -> None:
    values = storable(keep_bits)
    expected = direct(values, keep_bits)
    np.testing.assert_array_equal(encoding.round_bits(values, keep_bits), expected)
    np.testing.assert_array_equal(encoding.round_bits(-values, keep_bits), -expected)
    assert np.signbit(encoding.round_bits(-values, keep_bits)).all()


@every_keep_bits
def test_dropped_bits_are_zero_and_rounding_again_changes_nothing(keep_bits: int) -> None:
    rounded = encoding.round_bits(storable(keep_bits), keep_bits)
    assert not (rounded.view(np.uint16) & ((1 << (10 - keep_bits)) - 1)).any()
    np.testing.assert_array_equal(encoding.round_bits(rounded, keep_bits), rounded)


@every_keep_bits
def test_the_error_is_at_most_half_of_the_last_kept_bit(keep_bits: int) -> None:
    values = storable(keep_bits)
    error = np.abs(whole(encoding.round_bits(values, keep_bits)) - whole(values))
    last_bit = 2.0 ** (np.maximum(np.frexp(values.astype(np.float64))[1] - 1, -14) - keep_bits) / SMALLEST
    assert (error <= last_bit / 2).all()


@pytest.mark.parametrize(
    ("value", "keep_bits", "expected"),
    [
        (1.125, 2, 1.0),  # halfway: to the even neighbour below
        (1.375, 2, 1.5),  # halfway: to the even neighbour above
        (1.126, 2, 1.25),
        (1.96875, 3, 2.0),  # into the next binade
        (-1.96875, 3, -2.0),
        (2.0**-24, 5, 0.0),
        (2.0**-15, 0, 0.0),  # halfway between nothing and the smallest that is kept
        (1.5 * 2.0**-14, 1, 1.5 * 2.0**-14),
    ],
)
def test_some_values_by_hand(value: float, keep_bits: int, expected: float) -> None:
    assert encoding.round_bits(np.array([value], dtype=np.float16), keep_bits) == np.float16(expected)


@pytest.mark.parametrize("keep_bits", [*range(10), None])
def test_what_is_below_the_limit_stays_finite(keep_bits: int | None) -> None:
    """In float32, as models compute z: the cast to float16 also rounds up, before bits are dropped."""
    limit = np.float32(encoding.limit(keep_bits))
    below = np.nextafter(limit - np.arange(0, 100, dtype=np.float32), np.float32(0)).astype(np.float16)
    assert np.isfinite(below).all()
    if keep_bits is not None:
        assert np.isfinite(encoding.round_bits(below, keep_bits)).all()


@pytest.mark.parametrize("keep_bits", range(1, 10))
def test_what_is_not_below_the_limit_would_be_infinite(keep_bits: int) -> None:
    over = NOT_NEGATIVE[NOT_NEGATIVE.astype(np.float64) >= encoding.limit(keep_bits)]
    assert np.isinf(encoding.round_bits(over, keep_bits)).all()
    assert len(over) == 2 ** (9 - keep_bits)


def test_the_limit_of_all_bits_is_where_float16_itself_ends() -> None:
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(encoding.limit(None)).astype(np.float16))


def test_limits_rise_with_the_bits_that_are_kept() -> None:
    limits = [encoding.limit(keep_bits) for keep_bits in (*range(10), None)]
    assert limits == sorted(set(limits))
    assert limits[0] > 49_000


@given(heads, st.integers(0, 9))
def test_shape_and_order_stay_whatever_the_layout_in_memory(z_NHE: Float16, keep_bits: int) -> None:
    before = z_NHE.copy()
    rounded = encoding.round_bits(z_NHE, keep_bits)
    turned = encoding.round_bits(z_NHE.T, keep_bits)
    assert (rounded.shape, rounded.dtype) == (z_NHE.shape, np.float16)
    np.testing.assert_array_equal(turned.T, rounded)
    np.testing.assert_array_equal(z_NHE, before)


# 8 bits and a scale


def assert_within_half_a_scale(z_NHE: Float16) -> None:
    steps_NHE, scale_NH = encoding.quantise(z_NHE)
    assert (steps_NHE.dtype, steps_NHE.shape) == (np.int8, z_NHE.shape)
    assert (scale_NH.dtype, scale_NH.shape) == (np.float16, z_NHE.shape[:-1])
    assert steps_NHE.min() >= -127  # -128 has no opposite
    z, scale_NH1 = z_NHE.astype(np.float64), scale_NH.astype(np.float64)[..., None]
    product = steps_NHE * scale_NH1
    assert (np.abs(product - z) <= scale_NH1 / 2 * (1 + 2.0**-20)).all()
    decoded = encoding.dequantise(steps_NHE, scale_NH)
    assert decoded.dtype == np.float16
    np.testing.assert_array_equal(decoded, product.astype(np.float16))
    half_ulp = np.spacing(np.abs(decoded)).astype(np.float64) / 2
    assert (np.abs(decoded.astype(np.float64) - z) <= scale_NH1 / 2 * (1 + 2.0**-20) + half_ulp).all()


@given(heads)
def test_any_values_come_back_to_half_a_scale(z_NHE: Float16) -> None:
    assert_within_half_a_scale(z_NHE)


@given(st.integers(1, 0x7BFF), st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_values_of_one_size_come_back_to_half_a_scale(largest: int, parts: list[float]) -> None:
    """At every size, the subnormal ones too: `parts` of the largest, as z of a real head is."""
    size = np.uint16(largest).view(np.float16)
    assert_within_half_a_scale(np.array([[[size, *(float(size) * part for part in parts)]]], np.float16))


def test_every_value_alone_comes_back_to_half_a_scale() -> None:
    assert_within_half_a_scale(np.concatenate([NOT_NEGATIVE, -NOT_NEGATIVE])[:, None, None])


def test_the_scale_is_never_too_small_and_one_float16_less_would_be() -> None:
    largest = NOT_NEGATIVE[1:]
    scale = encoding.quantise(largest[:, None, None])[1][:, 0]
    reach = scale.astype(np.float64) * 127 * (1 + 2.0**-20)
    enough = reach >= largest.astype(np.float64)
    assert enough[scale < encoding.LARGEST_SCALE].all()
    less = np.nextafter(scale, np.float16(0)).astype(np.float64) * 127
    assert (less < largest.astype(np.float64)).all()


def test_a_scale_times_the_largest_step_is_a_float16() -> None:
    scale_N1 = encoding.quantise(NOT_NEGATIVE[:, None, None])[1]
    ends_N12 = encoding.dequantise(np.tile(np.array([-127, 127], np.int8), (len(scale_N1), 1, 1)), scale_N1)
    assert np.isfinite(ends_N12).all()
    larger = np.nextafter(encoding.LARGEST_SCALE, np.float16(np.inf))
    with np.errstate(over="ignore"):
        assert np.isinf(encoding.dequantise(np.array([127]), larger[None]))


def test_a_head_that_writes_nothing_stays_nothing() -> None:
    z_NHE = np.zeros((2, 3, 4), np.float16)
    z_NHE[1, 2] = [1, -2, 3, -4]
    steps_NHE, scale_NH = encoding.quantise(z_NHE)
    assert not scale_NH[0].any() and not scale_NH[1, :2].any()
    decoded = encoding.dequantise(steps_NHE, scale_NH)
    assert not decoded[0].any() and not decoded[1, :2].any()
    assert_within_half_a_scale(z_NHE)


def test_each_row_and_head_has_a_scale_of_its_own() -> None:
    z_NHE = np.array([[[1.0, -1.0], [100.0, 1.0]], [[1e-3, 0.0], [6e4, 1.0]]], np.float16)
    steps_NHE, scale_NH = encoding.quantise(z_NHE)
    assert len(np.unique(scale_NH)) == 4
    assert (np.abs(steps_NHE).max(-1) >= 126).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_values_come_back(sign: int) -> None:
    z_NHE = np.array([[[sign * LARGEST, LARGEST / 2]]], np.float16)
    steps_NHE, scale_NH = encoding.quantise(z_NHE)
    assert scale_NH == encoding.LARGEST_SCALE
    assert math.isclose(encoding.dequantise(steps_NHE, scale_NH)[0, 0, 0], sign * LARGEST, rel_tol=1e-3)
    assert_within_half_a_scale(z_NHE)


def test_no_rows_are_no_rows() -> None:
    steps_NHE, scale_NH = encoding.quantise(np.empty((0, 2, 4), np.float16))
    assert encoding.dequantise(steps_NHE, scale_NH).shape == (0, 2, 4)
