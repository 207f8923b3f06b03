"""The DeepSpeed files of `train_jobs/`: DeepSpeed knows every key, and a fit takes each and gives the same lenses."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

FILES = sorted((Path(__file__).parents[2] / "train_jobs").glob("*.json"))
STAGES = {"zero1.json": 1, "zero2.json": 2, "zero3.json": 3, "offload.json": 2}
SIZES = ("--layers", 3, "--heads", "1,4", "--steps", 6, "--batch-rows", 256, "--eval-rows", 1024)

every_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)


def test_there_is_a_file_for_each_stage() -> None:
    assert {file.name for file in FILES} == set(STAGES)


@every_file
def test_deepspeed_knows_every_key(file: Path) -> None:
    from deepspeed.runtime import constants
    from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION, DeepSpeedZeroConfig

    given = json.loads(file.read_text())
    assert DeepSpeedZeroConfig(**given["zero_optimization"]).stage == STAGES[file.name]
    known = {
        name for field in DeepSpeedZeroConfig.model_fields.items() for name in (field[0], field[1].alias)
    }
    assert set(given["zero_optimization"]) <= known
    assert set(given) <= {ZERO_OPTIMIZATION, constants.ZERO_FORCE_DS_CPU_OPTIMIZER}


@pytest.mark.slow
@every_file
def test_a_fit_takes_the_file_and_gives_the_same_lenses(
    run_alens_process: Any, demo_cache: Path, tmp_path: Path, file: Path
) -> None:
    """With a checkpoint on the way: the state comes out of a partitioned or offloaded optimiser."""
    for name, options in (("plain", ()), ("partitioned", ("--deepspeed", file))):
        done = run_alens_process(
            "fit", demo_cache, tmp_path / name, *SIZES, "--device", "cpu", "--checkpoint-every", 4, *options
        )
        assert done.code == 0, done.stderr
    actual, expected = (
        load_file(tmp_path / name / "layer-03.safetensors") for name in ("partitioned", "plain")
    )
    for name, value in expected.items():
        assert float((actual[name] - value).abs().max()) <= 1e-5 * float(value.abs().max())
