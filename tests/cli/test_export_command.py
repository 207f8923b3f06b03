"""`alens export`: what it says, what it writes, and how it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ..outcomes import assert_one_line

Copy = Callable[[Path], Path]


def test_the_size_is_said_and_the_layers_are_written(
    run_alens: Any, demo_lenses: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = run_alens("export", demo_lenses, out, "--layers", "3", "--form", "z", "--dtype", "float16")
    assert outcome.code == 0, outcome.stderr
    assert "will take 541 kB: heads 3.1,3.4, 32 x 4,096 float16 a head" in outcome.stderr
    assert f"{out}: {(out / 'layer-03.safetensors').stat().st_size:,} bytes" in outcome.stdout
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "layer-03.safetensors",
        "mean-z.safetensors",
        "output.safetensors",
    }
    assert load_file(out / "layer-03.safetensors")["head.4.weight"].shape == (32, 4096)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "1"), "has no lens for layer 1: it has layers 0, 3"),
        (("--form", "x"), "'x' is not one of 'paper', 'z'"),
        (("--dtype", "x"), "is not one of 'float32', 'float16', 'bfloat16'"),
    ],
)
def test_a_wrong_request_is_one_line(
    run_alens: Any, demo_lenses: Path, tmp_path: Path, options: Any, message: str
) -> None:
    assert_one_line(run_alens("export", demo_lenses, tmp_path / "out", *options), 2, message)
    assert not (tmp_path / "out").exists()


def test_what_is_no_lens_directory_is_refused(run_alens: Any, tmp_path: Path) -> None:
    assert_one_line(run_alens("export", tmp_path, tmp_path / "out"), 2, "holds no lenses")


def test_a_place_that_is_taken_is_refused(run_alens: Any, demo_lenses: Path, copy_of: Copy) -> None:
    taken = copy_of(demo_lenses)
    outcome = run_alens("export", demo_lenses, taken)
    assert outcome.code == 2
    assert "is not empty: give a directory that is not there yet" in outcome.stderr.splitlines()[-1]


def test_an_altered_lens_is_never_exported(run_alens: Any, demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    file = root / "layer-03.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    outcome = run_alens("export", root, root.parent / "out")
    assert outcome.code == 1
    assert "layer-03.safetensors was altered" in outcome.stderr.splitlines()[-1]
    assert [path.name for path in root.parent.iterdir()] == [root.name]
