"""Caches and lenses of one device, computed again and judged on the other: they are the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import cli

pytestmark = pytest.mark.gpu

FIT = ("--layers", "2,3", "--steps", "30", "--eval-rows", "2048", "--start", "mean-output")


@pytest.fixture(scope="module")
def devices(gpu: torch.device) -> tuple[str, str]:
    """The GPU, and the CPU; in a rehearsal twice the CPU."""
    return gpu.type, "cpu"


@pytest.fixture(scope="module")
def caches(devices: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache of the demo by each device."""
    root = tmp_path_factory.mktemp("caches")
    sizes = ("--max-rows", "8192", "--rows-per-shard", "1024", "--seq-len", "64", "--exact-teacher")
    made = root / "first", root / "second"
    for store, device in zip(made, devices, strict=True):
        assert cli.run(["cache", "demo", "demo", str(store), *sizes, "--device", device]) == 0
    return made


@pytest.mark.parametrize("made", [0, 1])
def test_each_device_computes_the_cache_of_the_other_again(
    caches: tuple[Path, Path], devices: tuple[str, str], made: int
) -> None:
    assert cli.run(["verify", str(caches[made]), "--deep", "512", "--device", devices[1 - made]]) == 0


def test_lenses_of_both_devices_judge_alike_on_both_and_can_be_read(
    caches: tuple[Path, Path],
    devices: tuple[str, str],
    tmp_path: Path,
    run_alens_process: Any,
    run_alens: Any,
    record_property: Any,
) -> None:
    """Each fit in a process of its own: DeepSpeed keeps to one device."""
    fitted = []
    for number, device in enumerate(devices):
        lenses = tmp_path / str(number)
        outcome = run_alens_process("fit", caches[1], lenses, *FIT, "--device", device)
        assert outcome.code == 0, outcome
        held_out = json.loads((lenses / "lens.json").read_text())["held_out"]
        fitted.append([head["kl"] for layer in held_out.values() for head in layer])
        judged = []
        for other in devices:
            outcome = run_alens("eval", lenses, caches[0], "--rows", 1024, "--device", other, "--json")
            assert outcome.code == 0, outcome
            judged.append([reading["kl"] for reading in json.loads(outcome.stdout)["readings"]])
        assert judged[0] == pytest.approx(judged[1], rel=1e-4, abs=1e-5)
        assert run_alens("read", lenses, "He took her hand", "--device", devices[0]).code == 0
    apart = max(abs(ours / theirs - 1) for ours, theirs in zip(*fitted, strict=True))
    record_property("kl of the lenses of both devices", fitted)
    record_property("largest relative difference", apart)
    assert apart < 2e-3
