"""How far another order of summing may move what a model computes. `alens.cache.tolerance` derives the formula."""

import math

MARGIN = {"float32": 8.0, "bfloat16": 2.0, "float16": 2.0}
"""Rounding of 16-bit results is the same in most places whatever the order, so it needs less."""

FLOAT32_UNIT = 2.0**-24


def noise(dtype: str, *, n_layers: int, d_model: int) -> float:
    """The share of a row's largest value by which another order of summing may move any of its values."""
    unit = {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(dtype, FLOAT32_UNIT * math.sqrt(4 * d_model))
    return MARGIN[dtype] * math.sqrt(8 * n_layers) * unit
