"""A step of a fit at the shape of GPT-2 small, its batch already on the device: where the time goes, and who waits."""

import collections
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from alens.fit.distributed import join
from alens.fit.engine import Engine
from alens.fit.lens_module import LensModule
from alens.fit.objectives.forward_kl import ForwardKL
from alens.lens.designs.design import Ground
from alens.lens.designs.linear import Linear
from alens.lens.whitening import Whitening
from alens.rows.teacher import CompressedTeacher
from gpu_stages.say import DEVICE, REHEARSED, end_with_run, say

H, E, V, J = (2, 8, 99, 4) if REHEARSED else (12, 64, 50_257, 128)
SHAPES = ((1, 64), (2, 64)) if REHEARSED else ((1, 1024), (12, 1024), (1, 8192), (12, 8192))
"""Layers, and rows a step."""
STEPS = 3 if REHEARSED else 20


def engine(layers: int, rows: int, device: torch.device) -> Engine:
    """A linear lens for each of H heads in each layer."""
    unit = Whitening(mean_HE=torch.zeros(H, E), scale_HEE=torch.eye(E).expand(H, E, E).clone()).to(device)
    bias_V = -(torch.arange(V, device=device) + 3.0).log()
    ground = Ground(whitening=unit, log_mean_output_V=bias_V.log_softmax(0))
    module = LensModule({layer: Linear(ground) for layer in range(layers)}, ForwardKL())
    made = Engine(module, join(device.type), zero=0, batch_rows=rows, lr=0.03)
    made.start()
    return made


def batch(layers: int, rows: int, device: torch.device) -> tuple[dict[int, torch.Tensor], CompressedTeacher]:
    """Normal z, and targets as skewed as words are."""
    random = torch.Generator(device.type).manual_seed(0)
    shares_V = 1 / (torch.arange(V, device=device) + 3.0)
    ids_NJ = torch.multinomial(shares_V, rows * J, replacement=True, generator=random).view(rows, J)
    weights_NJ = torch.rand(rows, J, device=device, generator=random).softmax(-1)
    z = {layer: torch.randn(rows, H, E, device=device, generator=random).half() for layer in range(layers)}
    return z, CompressedTeacher(ids_NJ, weights_NJ, torch.zeros(rows, device=device))


def waits(step: Any) -> dict[str, int]:
    """How often a step waits for the device, by line."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return dict(collections.Counter(f"{Path(one.filename).name}:{one.lineno}" for one in caught))


def measured(layers: int, rows: int, device: torch.device) -> dict[str, Any]:
    """One engine, stepped."""
    made, (z, teacher) = engine(layers, rows, device), batch(layers, rows, device)

    def step() -> None:
        made.step(z, teacher.keeping(), 0.03)

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    finish()
    since, host_s = time.perf_counter(), 0.0
    for _ in range(STEPS):
        begun = time.perf_counter()
        step()
        host_s += time.perf_counter() - begun
    finish()
    step_s = (time.perf_counter() - since) / STEPS
    body: dict[str, Any] = {
        "ms": round(1e3 * step_s, 2),
        "host_ms": round(1e3 * host_s / STEPS, 2),
        "rows_a_s": round(rows / step_s),
    }
    if device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
            finish()
        spent = sorted(
            ((e.self_device_time_total / 1e3, e.key[:60]) for e in profile.key_averages()), reverse=True
        )
        body["ms_by_kernel"] = {key: round(ms, 3) for ms, key in spent[:10]}
        body["waits"] = waits(step)
        body["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return body


def main() -> None:
    """One figure a shape."""
    end_with_run()
    device = torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device("cpu")
    for layers, rows in SHAPES:
        say(f"{layers * H} heads, {rows} rows", measured(layers, rows, device))
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
