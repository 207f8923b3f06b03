"""What the page on GPUs says of the installed packages and of alens holds, as far as a machine without one can tell."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import FitRequest, fit_lenses
from alens.fit.settings import FitSettings

from . import pages

PAGE = pages.ROOT / "docs" / "gpu.md"
READ_BY = {
    "TRITON_CACHE_DIR": "triton/knobs.py",
    "TRITON_HOME": "triton/knobs.py",
    "TORCH_EXTENSIONS_DIR": "torch/utils/cpp_extension.py",
    "DS_PIN_MEMORY_BACKEND": "deepspeed/utils/pin_memory.py",
}
"""The file that reads each variable which the page names."""


def source(path: str) -> str:
    """A file of an installed package."""
    spec = importlib.util.find_spec(path.partition("/")[0])
    if spec is None or spec.origin is None:
        pytest.skip(f"{path} is not installed")
    return (Path(spec.origin).parent / path.partition("/")[2]).read_text()


@pytest.mark.parametrize(("variable", "path"), READ_BY.items())
def test_the_packages_read_the_variables_that_the_page_names(variable: str, path: str) -> None:
    assert variable in PAGE.read_text()
    assert variable in source(path)


def test_what_the_page_says_that_alens_says_is_what_it_says() -> None:
    """Parts of the messages, between what depends on the machine."""
    code = " ".join(path.read_text() for path in (pages.ROOT / "pipeline/alens").rglob("*.py"))
    said = re.findall(r"^\| [^|]* \| .*?`([^`|]*)`", PAGE.read_text().split("## Which GPU")[1], re.MULTILINE)
    parts = [part for text in said for part in re.split(r"\.\.\.|\d+\.\d+|CUDA 11|: | and PyTorch ", text)]
    parts = [part.strip(" ()") for part in parts if len(part) > 12]
    assert len(parts) > 4
    assert [part for part in parts if part not in code] == []


def test_the_question_to_pytorch_can_be_asked() -> None:
    (line,) = [line for line in PAGE.read_text().splitlines() if "torch.version.cuda, torch.cuda" in line]
    (code,) = re.findall(r'-c "(.*)"', line)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == str(torch.version.cuda)


@pytest.mark.slow
def test_torchrun_leaves_alens_its_start_behind_two_dashes() -> None:
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith("torchrun ")]
    words = line.split()
    assert words[3:6] == ["-m", "--", "alens"] and "--start" in words
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m"]
    asked = ["alens", *words[words.index("alens") + 1 :], "--help"]
    done = subprocess.run([*run, "--", *asked], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "mean-output" in done.stdout, done.stderr
    without = subprocess.run([*run, *asked], capture_output=True, text=True, timeout=300)
    assert without.returncode == 2 and "ambiguous option: --start" in without.stderr


@pytest.mark.slow
@pytest.mark.parametrize("config", [None, "offload.json"])
@pytest.mark.parametrize("zero", [0, 1, 3])
def test_a_fit_loads_no_operation_that_deepspeed_would_compile(
    demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int, config: str | None
) -> None:
    if config is not None and zero != 0:
        pytest.skip("the file says which stage")
    from deepspeed.ops.op_builder.builder import OpBuilder

    def load(self: Any, verbose: bool = True) -> None:
        raise AssertionError(f"a fit loads {self.name}")

    monkeypatch.setattr(OpBuilder, "load", load)
    monkeypatch.setattr(OpBuilder, "jit_load", load)
    settings = FitSettings(layers=(2,), heads=(1,), steps=3, batch_rows=256, eval_rows=1024)
    given = {"deepspeed": pages.ROOT / "train_jobs" / config} if config else {"zero": zero}
    fit_lenses(
        FitRequest(store=demo_cache, lenses=tmp_path / "lenses", settings=settings, device="cpu", **given)
    )
    assert (tmp_path / "lenses" / "lens.json").is_file()
