"""How near the core operation comes to the rate of this machine's matrix products.

Measures float32 products (by MKL and, where it is as exact, by oneDNN) and bfloat16 products, at the shapes
of the operation and as one large square; then, in turn, loss and gradients of `cross_entropy` and of plain
PyTorch (autograd through log_softmax, rows x V held). The best of several runs counts. Prints one JSON
document; shares count 4 F V flop a row and head, the least that any way needs.

    python benchmarks/core_operation.py [--vocabulary 50257] [--features 64] [--heads 12] [--rows 1024] [--threads 1]
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from functools import partial

import torch

from alens.fit.objectives.cross_entropy import cross_entropy
from alens.machine import blocks
from alens.machine.products import fast_float32
from alens.rows.teacher import CompressedTeacher

SQUARE = 2048
PLAIN_ROWS = 256
"""Rows of plain PyTorch, one head at a time: it holds four arrays of rows x V."""


def seconds(run: Callable[[], object]) -> float:
    """Seconds of one run; with one thread its processor time, which other processes disturb less."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    run()
    return clock() - started


def best(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least seconds of each, taken in turn."""
    least = {name: float("inf") for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            least[name] = min(least[name], seconds(run))
    return least


def product_rates(F: int, V: int, repeats: int) -> dict[str, dict[str, float]]:
    """GFLOP/s of a large square, and of the three products of a tile."""
    R, C = blocks.CPU_TILE_ROWS, min(V, blocks.CPU_TILE_COLUMNS)
    kinds: dict[str, tuple[torch.dtype, Callable[[], contextlib.AbstractContextManager[None]]]] = {
        "float32 as torch sends it": (torch.float32, contextlib.nullcontext),
        "float32": (torch.float32, fast_float32),
        "bfloat16": (torch.bfloat16, contextlib.nullcontext),
    }
    rates: dict[str, dict[str, float]] = {}
    for kind, (dtype, way) in kinds.items():
        square, x, w = (torch.randn(shape).to(dtype) for shape in ((SQUARE, SQUARE), (R, F), (F, C)))
        out, logits, gradient = torch.empty_like(square), torch.empty(R, C, dtype=dtype), torch.zeros_like(w)
        x_T = x.T.contiguous()
        flops = {"square": 2 * SQUARE**3, "logits": 2 * R * F * C, "gradient": 2 * R * F * C}
        with way():
            taken = best(
                {
                    "square": partial(torch.mm, square, square, out=out),
                    "logits": partial(torch.mm, x, w, out=logits),
                    "gradient": partial(gradient.addmm_, x_T, logits),
                },
                4 * repeats,
            )
        rates[kind] = {name: round(flops[name] / taken[name] / 1e9, 1) for name in flops}
    return rates


def main() -> None:
    """Rates of products, then both ways in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=50_257)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    H, N, F, V = asked.heads, asked.rows, asked.features, asked.vocabulary
    rates = product_rates(F, V, asked.repeats)

    features_HNF = torch.randn(H, N, F)
    weight_HFV = (0.1 * torch.randn(H, F, V)).requires_grad_()
    bias_HV = (torch.randn(H, V) - 10.0).requires_grad_()
    ids_NJ = torch.cat([torch.randint(min(V, 2000), (N, 64)), torch.randint(V, (N, 64))], dim=1)
    teacher = CompressedTeacher(ids_NJ, torch.full((N, 128), 1 / 128), torch.zeros(N))
    plain_rows = min(N, PLAIN_ROWS)
    dense_NV = torch.zeros(plain_rows, V).scatter_add_(
        1, ids_NJ[:plain_rows], teacher.weights_NJ[:plain_rows]
    )

    def ours() -> None:
        weight_HFV.grad = bias_HV.grad = None
        cross_entropy(features_HNF, weight_HFV, bias_HV, teacher).sum().backward()

    def plain() -> None:
        weight, bias = (tensor[0].detach().requires_grad_() for tensor in (weight_HFV, bias_HV))
        logits_NV = torch.addmm(bias, features_HNF[0, :plain_rows], weight)
        (-(dense_NV * logits_NV.log_softmax(-1)).sum() / plain_rows).backward()

    taken = best({"alens": ours, "plain": plain}, asked.repeats)
    row_heads = {"alens": N * H / taken["alens"], "plain": plain_rows / taken["plain"]}
    rate = rates["float32"]["square"]
    body = {
        "shape": {"heads": H, "rows": N, "features": F, "vocabulary": V, "threads": asked.threads},
        "products_gflops": rates,
        **{
            name: {
                "row_heads_per_s": round(count),
                "rows_per_s": round(count / H, 1),
                "gflops": round(count * 4 * F * V / 1e9, 1),
                "share_of_square_float32": round(count * 4 * F * V / 1e9 / rate, 3),
            }
            for name, count in row_heads.items()
        },
        "times_plain": round(row_heads["alens"] / row_heads["plain"], 2),
    }
    print(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
