"""Fits on the GPU: every ZeRO stage, bfloat16, offload, going on after a stop, two processes. All judge alike.

Fits in this process are all on one device, since DeepSpeed keeps to one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import FitRequest, fit_lenses
from alens.errors import StoppedError
from alens.fit.settings import FitSettings

from ..stops import Stop

pytestmark = pytest.mark.gpu

Fit = Callable[..., list[float]]
Record = Callable[[str, object], None]

STEPS = 12
SAME, ROUNDED = 1e-3, 3e-2
"""How far KLs may be apart: sums in another order, and weights or their gradients in bfloat16."""


def kls(lenses: Path) -> list[float]:
    held_out = json.loads((lenses / "lens.json").read_text())["held_out"]
    return [head["kl"] for layer in held_out.values() for head in layer]


@pytest.fixture(scope="module")
def usual(gpu: torch.device, demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """KLs of a fit without any of these."""
    lenses = tmp_path_factory.mktemp("usual") / "lenses"
    fit_lenses(request(gpu, demo_cache, lenses))
    return kls(lenses)


def request(gpu: torch.device, store: Path, lenses: Path, **more: Any) -> FitRequest:
    settings = FitSettings(layers=(0, 2), steps=STEPS, batch_rows=512, eval_rows=1024, start="mean-output")
    return FitRequest(store=store, lenses=lenses, settings=settings, device=gpu.type, **more)


@pytest.mark.parametrize("config", [None, "bf16", "offload"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_every_way_to_share_out_a_fit_gives_its_lenses(
    gpu: torch.device,
    demo_cache: Path,
    tmp_path: Path,
    usual: list[float],
    record_property: Record,
    zero: int,
    config: str | None,
) -> None:
    if config is not None and zero in (0, 2):
        pytest.skip("bfloat16 and offload want a partition; stages 1 and 3 are the two kinds")
    file = None
    if config is not None:
        offload = {"offload_optimizer": {"device": "cpu", "pin_memory": gpu.type == "cuda"}}
        body = {"bf16": {"enabled": True}} if config == "bf16" else {"zero_optimization": offload}
        file = tmp_path / "deepspeed.json"
        file.write_text(json.dumps(body))
    fit_lenses(request(gpu, demo_cache, tmp_path / "lenses", zero=zero, deepspeed=file))
    record_property("kl", kls(tmp_path / "lenses"))
    assert kls(tmp_path / "lenses") == pytest.approx(usual, rel=ROUNDED if config == "bf16" else SAME)


@pytest.mark.parametrize("zero", [0, 3])
def test_a_fit_goes_on_after_a_stop(
    gpu: torch.device, demo_cache: Path, tmp_path: Path, usual: list[float], zero: int
) -> None:
    stop = Stop(5)
    with pytest.raises(StoppedError):
        fit_lenses(
            request(gpu, demo_cache, tmp_path / "lenses", zero=zero), report=stop.report, should_stop=stop
        )
    assert (tmp_path / "lenses" / "checkpoints").is_dir()
    fit_lenses(request(gpu, demo_cache, tmp_path / "lenses", zero=zero))
    assert kls(tmp_path / "lenses") == pytest.approx(usual, rel=SAME)


@pytest.mark.parametrize("zero", [0, 2])
def test_two_processes_give_the_lenses_of_one(
    gpu: torch.device, demo_cache: Path, tmp_path: Path, usual: list[float], zero: int
) -> None:
    if gpu.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU: a process each wants two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "alens"]
    fit = ["--layers", "0,2", "--steps", STEPS, "--batch-rows", 512, "--eval-rows", 1024, "--zero", zero]
    more = ["--start", "mean-output", "--device", gpu.type]
    done = subprocess.run(
        [sys.executable, *launch, "fit", demo_cache, str(tmp_path / "lenses"), *map(str, (*fit, *more))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert kls(tmp_path / "lenses") == pytest.approx(usual, rel=SAME)
