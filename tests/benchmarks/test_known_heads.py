"""The benchmark of known heads runs on any model, and its sign test counts what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/known_heads.py"


@pytest.mark.slow
def test_a_model_and_its_lenses(demo_cache: Path, tmp_path: Path) -> None:
    """Lenses of all heads in closed form."""
    lenses = tmp_path / "lenses"
    alens = [sys.executable, "-m", "alens"]
    subprocess.run(
        [*alens, "fit", demo_cache, lenses, "--lens", "regression", "--eval-rows", "1024"], check=True
    )
    ran = subprocess.run(
        [sys.executable, SCRIPT, "demo", "--lenses", lenses, "--prompts", "12"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(
        f"\n| {name} | " in ran.stdout for name in ("induction", "copying", "written", "lens", "unembedding")
    )
    assert "these 5 | " in ran.stdout and "5 other heads of these layers, 10 draws | " in ran.stdout
