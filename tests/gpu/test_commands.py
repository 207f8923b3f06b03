"""Caches and lenses made on a GPU, beside those of a CPU, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alens import cli

pytestmark = pytest.mark.gpu

DEVICES = ("cuda", "cpu")


@pytest.fixture(scope="module")
def caches(gpu: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the demo by each device, in a directory of its name."""
    root = tmp_path_factory.mktemp("caches")
    sizes = ("--max-rows", "8192", "--rows-per-shard", "1024", "--seq-len", "64", "--exact-teacher")
    for device in DEVICES:
        assert cli.run(["cache", "demo", "demo", str(root / device), *sizes, "--device", device]) == 0
    return root


@pytest.mark.parametrize("made", DEVICES)
def test_each_device_computes_the_cache_of_the_other_again(caches: Path, made: str) -> None:
    (other,) = set(DEVICES) - {made}
    assert cli.run(["verify", str(caches / made), "--deep", "512", "--device", other]) == 0


def test_lenses_of_both_devices_judge_alike_and_can_be_read(
    caches: Path, tmp_path: Path, run_alens_process: Callable[..., object]
) -> None:
    """Each fit in a process of its own: DeepSpeed keeps to one device."""
    kl = {}
    for device in DEVICES:
        lenses = tmp_path / device
        fit = ("--layers", "2,3", "--steps", "40", "--eval-rows", "2048", "--device", device)
        assert run_alens_process("fit", caches / "cpu", lenses, *fit).code == 0  # type: ignore[attr-defined]
        held_out = json.loads((lenses / "lens.json").read_text())["held_out"]
        kl[device] = [head["kl"] for layer in held_out.values() for head in layer]
        assert cli.run(["eval", str(lenses), str(caches / "cuda"), "--rows", "1024", "--device", "cuda"]) == 0
        assert cli.run(["read", str(lenses), "He took her hand", "--device", "cuda"]) == 0
    assert kl["cuda"] == pytest.approx(kl["cpu"], rel=2e-3)
