"""Every command runs on the GPU, once, with the arguments of `tests/cli/test_console.py`."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alens.cli import COMMANDS, MODULES

from ..cli.test_console import every_command
from ..object_servers import S3Server

pytestmark = pytest.mark.gpu


def takes_device(name: str) -> bool:
    command = importlib.import_module(f"alens.cli.{MODULES.get(name, name)}").command
    return any(parameter.name == "device" for parameter in command.params)


@pytest.fixture(scope="module")
def arguments(
    gpu: torch.device, demo_cache: Path, moto: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Any]]:
    """Arguments by command, on the GPU where it takes a device. Lenses are fitted in another process, as in
    every test here: DeepSpeed keeps to one device, and this process may be asked for another."""
    folder = tmp_path_factory.mktemp("commands")
    lenses = folder / "lenses"
    fit = ["fit", demo_cache, lenses, "--layers", "0,3", "--heads", "1,4", "--eval-rows", "1024"]
    command = [sys.executable, "-m", "alens", *map(str, fit), "--device", gpu.type]
    subprocess.run(command, check=True, capture_output=True)
    sizes = ("--max-rows", "512", "--rows-per-shard", "256", "--seq-len", "32")
    given = {"cache": ["cache", "demo", "demo", folder / "cache", *sizes]}
    given |= every_command(lenses, demo_cache, folder, f"s3://{moto.new_bucket()}/cache")
    for name, words in given.items():
        if "--device" in words:
            at = words.index("--device")
            words = [*words[:at], *words[at + 2 :]]
        given[name] = [*words, "--device", gpu.type] if takes_device(name) else words
    return given


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_works(
    name: str, arguments: dict[str, list[Any]], run_alens: Any, run_alens_process: Any, s3: S3Server
) -> None:
    run = run_alens_process if name in ("fit", "sweep", "fidelity") else run_alens
    outcome = run(*arguments[name])
    assert outcome.code == 0, outcome
