"""The Triton kernel of stage two on a CUDA machine: rows a second, share of the matrix-product limit, agreement.

At the shape of GPT-2 small (F = 64, V = 50,257, 64 ranks and 64 samples a row, ids as skewed as words are), for one
layer (12 heads) and all (144). The share counts 6 F V flop a row and head against a bfloat16 product of 8,192 x 8,192 x
8,192 timed on the same device. Agreement is with the PyTorch path in float32: norm of the difference over norm.
`--tiles` also times other tiles of each pass. Prints one JSON document; without CUDA it says so and ends with 0.

    python benchmarks/cuda_kernel.py [--rows 8192] [--repeats 20] [--tiles]
"""

import argparse
import dataclasses
import functools
import json
import statistics
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from alens.fit.objectives import cross_entropy_triton
from alens.fit.objectives.cross_entropy_triton import TENSOR_CORES, Tile, Tiles, cross_entropy_and_gradients
from alens.fit.objectives.forward_kl import forward_kl
from alens.rows.teacher import CompressedTeacher

F, V, J = 64, 50_257, 128
LAYER, MODEL = 12, 144
ALL_ROWS = 320e6
"""250,000 steps of 1,280 rows: the paper's run."""

CANDIDATES = [
    (64, 128, 8),
    (128, 64, 4),
    (128, 64, 8),
    (128, 128, 8),
    (256, 64, 8),
    (64, 64, 4),
    (64, 256, 8),
]
"""Rows, tokens and warps of a tile."""


def drawn(heads: int, rows: int) -> tuple[torch.Tensor, ...]:
    """Whitened features, small weights and a bias as skewed as a mean output; ids and weights of the teacher."""
    random = torch.Generator("cuda").manual_seed(0)
    ranks_V = torch.arange(V, device="cuda") + 3.0
    features = torch.randn(heads, rows, F, device="cuda", generator=random)
    weight = 0.2 * torch.randn(heads, F, V, device="cuda", generator=random)
    bias = -ranks_V.log().expand(heads, V).contiguous()
    ids = torch.multinomial(1 / ranks_V, rows * J, replacement=True, generator=random).view(rows, J)
    weights = torch.rand(rows, J, device="cuda", generator=random) ** 4
    return features, weight, bias, ids, weights / weights.sum(1, keepdim=True)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The median, by the device's clock, after two calls that compile and fill the caches."""
    call(), call()
    times = []
    for _ in range(repeats):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        call()
        ended.record()
        ended.synchronize()
        times.append(begun.elapsed_time(ended) / 1000)
    return float(statistics.median(times))


def product_flops(repeats: int) -> float:
    """Flop a second of a large bfloat16 product."""
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, repeats)


def by_pytorch(tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Loss and gradients by the path without the kernel, which is kept out of reach."""
    features, weight, bias, ids, weights = tensors
    leaves = weight.requires_grad_(), bias.requires_grad_()
    teacher = CompressedTeacher(ids, weights, features.new_zeros(len(ids)))
    refused = AssertionError("the PyTorch path called the kernel")
    with (
        mock.patch.object(cross_entropy_triton, "available", lambda *_: "this is the PyTorch path"),
        mock.patch.object(cross_entropy_triton, "cross_entropy_and_gradients", side_effect=refused),
    ):
        loss = forward_kl(features, *leaves, teacher)
        results = loss.detach(), *torch.autograd.grad(loss.sum(), leaves)
    weight.requires_grad_(False), bias.requires_grad_(False)
    return results


def agreement(rows: int) -> dict[str, dict[str, float]]:
    """How far each kind of product is from the PyTorch path: loss, weight gradient, bias gradient."""
    tensors = drawn(LAYER, rows)
    expected = by_pytorch(tensors)
    body = {}
    for products in ("bfloat16", "tf32", "ieee"):
        results = cross_entropy_and_gradients(*tensors, products=products)
        pairs = zip(("loss", "weight", "bias"), results, expected, strict=True)
        body[products] = {name: float((ours - theirs).norm() / theirs.norm()) for name, ours, theirs in pairs}
    return body


def rates(heads: int, rows: int, repeats: int, limit: float) -> dict[str, Any]:
    """Rows a second of one call, teacher and padding included."""
    tensors = drawn(heads, rows)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    once_s = seconds(lambda: cross_entropy_and_gradients(*tensors), repeats)
    return {
        "ms": round(1000 * once_s, 3),
        "rows_a_s": round(rows / once_s),
        "share_of_matrix_rate": round(6 * F * V * rows * heads / once_s / limit, 3),
        "hours_for_320_million_rows": round(ALL_ROWS * once_s / rows / 3600, 3),
        "memory_beside_arguments_gb": round((torch.cuda.max_memory_allocated() - before) / 1e9, 2),
    }


def tile_times(rows: int, repeats: int) -> dict[str, dict[str, float | str]]:
    """Milliseconds of a whole call of 12 heads with another tile in one pass."""
    tensors = drawn(LAYER, rows)
    body: dict[str, dict[str, float | str]] = {"logsumexp": {}, "gradient": {}}
    for name, times in body.items():
        for num_rows, tokens, warps in CANDIDATES:
            tile = Tile(rows=num_rows, tokens=tokens, warps=warps, stages=3)
            tiles: Tiles = dataclasses.replace(TENSOR_CORES, **{name: tile})
            try:
                once_s = seconds(lambda: cross_entropy_and_gradients(*tensors, tiles=tiles), repeats)  # noqa: B023  # called at once
                times[f"{num_rows} x {tokens}, {warps} warps"] = round(1000 * once_s, 3)
            except Exception as error:  # a tile may ask for more shared memory than there is
                times[f"{num_rows} x {tokens}, {warps} warps"] = type(error).__name__
    return body


def main() -> None:
    """Check, measure, extrapolate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tiles", action="store_true", help="also time other tiles")
    asked = parser.parse_args()
    if reason := cross_entropy_triton.available(F):
        print(f"benchmarks/cuda_kernel.py measured nothing: {reason}.")
        return
    limit = product_flops(asked.repeats)
    pytorch_s = seconds(functools.partial(by_pytorch, drawn(LAYER, asked.rows)), 3)
    body = {
        "device": torch.cuda.get_device_name(),
        "rows_a_call": asked.rows,
        "bf16_product_tflops": round(limit / 1e12, 1),
        "relative_difference_from_pytorch": agreement(min(asked.rows, 2048)),
        "pytorch_float32_12_heads_rows_a_s": round(asked.rows / pytorch_s),
        "12_heads": rates(LAYER, asked.rows, asked.repeats, limit),
        "144_heads": rates(MODEL, asked.rows, asked.repeats, limit),
    }
    if asked.tiles:
        body["ms_of_12_heads_by_tile"] = tile_times(asked.rows, asked.repeats)
    print(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
