"""Stores numbers in fewer bits and reads them back: z with rounded mantissas or 8 bits, covariances as float16.

In: float16 values. Out: float16 with fewer mantissa bits (which then compress well), or int8 with a scale for each row
and head. Covariances of heads, float64, become float16 with a scale for each head.
Shapes: N rows, H heads, E d_head, D d_model.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float16 = npt.NDArray[np.float16]

INT8_LARGEST = 127
LARGEST_SCALE = np.float16(515.5)
"""The largest scale: 127 times it is still a float16. Larger values, up to 65,504, are stored as 127 times this scale:
an error below half a step."""

SCALED_LARGEST = 2.0**15
"""What the largest value of `scaled` becomes: within the range of float16."""


def limit(keep_bits: int | None) -> float:
    """Numbers of smaller magnitude stay finite as float16, even when rounded to `keep_bits` mantissa bits."""
    return 2.0**16 - 2.0**4 - (0.0 if keep_bits is None else 2.0 ** (14 - keep_bits))


def round_bits(values: Float16, keep_bits: int) -> Float16:
    """`values`, which are below `limit`, rounded to `keep_bits` mantissa bits, half to even. numcodecs' BitRound does it
    outside of the codec chain: inside, it would be a codec that the Zarr v3 specification does not know."""
    from numcodecs import BitRound

    rounded: Float16 = np.asarray(BitRound(keep_bits).encode(np.ascontiguousarray(values))).view(np.float16)
    return rounded


def quantise(z_NHE: Float16) -> tuple[npt.NDArray[np.int8], Float16]:
    """(N, H, E) int8 and (N, H) float16 scales. Their product is z to half a scale, and to the rounding of float16."""
    z = z_NHE.astype(np.float32)
    needed_NH = np.abs(z).max(-1) / INT8_LARGEST
    scale_NH = needed_NH.astype(np.float16)
    too_small_NH = scale_NH.astype(np.float32) < needed_NH
    scale_NH = np.where(too_small_NH, np.nextafter(scale_NH, np.float16(np.inf)), scale_NH)
    scale_NH = np.minimum(scale_NH, LARGEST_SCALE)
    divisor_NH1 = np.where(scale_NH > 0, scale_NH, np.float16(1)).astype(np.float32)[..., None]
    steps = np.rint(z / divisor_NH1)
    return np.clip(steps, -INT8_LARGEST, INT8_LARGEST).astype(np.int8), scale_NH


def dequantise(steps_NHE: npt.NDArray[Any], scale_NH: npt.NDArray[Any]) -> Float16:
    """(N, H, E) float16: z from the result of `quantise`."""
    decoded: Float16 = (steps_NHE.astype(np.float32) * scale_NH.astype(np.float32)[..., None]).astype(
        np.float16
    )
    return decoded


def scaled(values_HED: npt.NDArray[np.float64]) -> tuple[Float16, npt.NDArray[np.float32]]:
    """(H, E, D) float16 and (H,) float32 scales. Their product is each head's values, to a share of 2^-11 down to a
    billionth of its largest."""
    largest_H = np.abs(values_HED).max((1, 2))
    scale_H = np.where(largest_H > 0, largest_H / SCALED_LARGEST, 1.0).astype(np.float32)
    scale_H = np.maximum(scale_H, np.finfo(np.float32).tiny)
    return (values_HED / scale_H[:, None, None]).astype(np.float16), scale_H


def unscaled(values_HED: npt.NDArray[Any], scale_H: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(H, E, D) float64: the values from the result of `scaled`."""
    values: npt.NDArray[np.float64] = values_HED.astype(np.float64) * scale_H[:, None, None]
    return values
