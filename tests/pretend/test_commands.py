"""Every command on the pretended GPU ends well and says what it says on the CPU: its numbers come from there.

So a tensor that was left on the CPU, or a value that was read before it had arrived, is a failing test.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from alens import open_cache
from alens.cli import COMMANDS, MODULES

from ..cli.test_console import every_command
from ..folders import file_names
from .conftest import Child

pytestmark = pytest.mark.pretend

NEAR = 2e-6
"""Relative: memory decides how many rows are worked on at once, and so in which order sums are taken."""

MORE = ("cache", "verify --deep", "read --html", "eval again")
NAMES = (*sorted({*COMMANDS} - {"cache", "verify", "push"}), *MORE)
DEVICES = ("cpu", "cuda")

OF_THE_RUN = {"seconds"}
"""Fields of a result that differ from run to run."""
NOT_COMPARED = (
    ".json",
    ".jsonl",
    ".toml",
    ".txt",
    ".md",
    ".csv",
    "claim",
    "stats/output/c.0.0",
    "stats/output/c.1.0",
)
"""Ends of the names of files that say how they were made, or hold a sum in an order of its own."""


def options(name: str) -> set[str]:
    """The options of a command."""
    command = importlib.import_module(f"alens.cli.{MODULES.get(name, name)}").command
    return {option for parameter in command.params for option in parameter.opts}


def commands(lenses: Path, cache: Path, folder: Path, device: str) -> dict[str, list[str]]:
    """The arguments of each command by name, on a device and as JSON where the command knows them."""
    folder.mkdir()
    chosen = every_command(lenses, cache, folder, "nowhere")
    sizes = ("--max-rows", "2048", "--rows-per-shard", "1024", "--seq-len", "64", "--batch-size", "4")
    chosen["cache"] = [
        "cache",
        "demo",
        "demo",
        folder / "cache",
        *sizes,
        "--layers",
        "0,3",
        "--exact-teacher",
    ]
    chosen["verify --deep"] = ["verify", cache, "--deep", "128"]
    chosen["read --html"] = ["read", lenses, "He was", "--html", folder / "page.html", "--layer", "3"]
    chosen["eval again"] = ["eval", lenses, folder / "measured", "--rows", "128", "--baselines", "written"]
    done = {}
    for name in NAMES:
        arguments, known = [str(part) for part in chosen[name]], options(name.split()[0])
        if "--device" in arguments:
            del arguments[arguments.index("--device") :][:2]
        # The second GPU, which is not the current one, so that a tensor on the first shows too.
        second = device == "cuda" and name.split()[0] not in ("fit", "sweep", "fidelity")
        arguments += ["--device", "cuda:1" if second else device] if "--device" in known else []
        as_json = "--json" in known and "--html" not in arguments
        done[name] = [*arguments, "--json"] if as_json else arguments
    return done


@pytest.fixture(scope="module")
def outcomes(
    in_child: Child, demo_lenses: Path, demo_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The folder of each device, and how each command ended there."""
    root = tmp_path_factory.mktemp("pretend")
    jobs = [
        {"gpus": 2 * (device == "cuda"), "commands": commands(demo_lenses, demo_cache, root / device, device)}
        for device in DEVICES
    ]
    return {device: (root / device, done) for device, done in zip(DEVICES, in_child(*jobs), strict=True)}


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Two documents are the same, numbers nearly."""
    assert type(ours) is type(theirs), (where, ours, theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours.keys() - OF_THE_RUN:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}/{number}")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=NEAR, abs=NEAR, nan_ok=True), where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("name", NAMES)
def test_a_command_ends_well_on_the_gpu(outcomes: dict[str, Any], name: str) -> None:
    for device in DEVICES:
        done = outcomes[device][1][name]
        assert done["code"] == 0, done["stderr"]
    works_there = "--device" in options(name.split()[0])
    assert bool(outcomes["cuda"][1][name]["waits"]) == works_there, "it did not run on the GPU"
    assert outcomes["cpu"][1][name]["waits"] == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("plan", "sweep", "publish")])
def test_results_are_those_of_the_cpu(outcomes: dict[str, Any], name: str) -> None:
    said = [
        outcomes[device][1][name]["stdout"].replace(str(outcomes[device][0]), "FOLDER") for device in DEVICES
    ]
    if said[0].startswith("{"):
        assert_same(*map(json.loads, said))
    else:
        assert len(said[0].splitlines()) == len(said[1].splitlines())


def test_files_are_those_of_the_cpu(outcomes: dict[str, Any]) -> None:
    (cpu, _), (gpu, _) = (outcomes[device] for device in DEVICES)
    names = file_names(cpu)
    assert [name.split(".part")[0] for name in names] == file_names(gpu)
    compared = [name for name in names if not name.endswith(NOT_COMPARED)]
    assert {name.split("/")[0] for name in compared} >= {
        "cache",
        "measured",
        "derived",
        "fit",
        "sweep",
        "atlas",
        "page.html",
    }
    for name in compared:
        if name.endswith(".safetensors"):
            ours, theirs = load_file(cpu / name), load_file(gpu / name)
            for key, values in ours.items():
                # Adam's first steps turn the rounding of a small gradient into a step of another size.
                apart = np.linalg.norm(values - theirs[key]) / max(np.linalg.norm(values), 1.0)
                assert apart < 1e-4, (name, key)
        else:
            assert (cpu / name).read_bytes() == (gpu / name).read_bytes(), name
    sums = [open_cache(folder / "cache") for folder in (cpu, gpu)]
    np.testing.assert_allclose(*(cache.log_mean_output(cache.shards) for cache in sums), rtol=1e-6)
