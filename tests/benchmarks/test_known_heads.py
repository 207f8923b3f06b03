"""The benchmark of known heads runs on any model, and its sign test counts what it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/known_heads.py"


@pytest.mark.slow
def test_a_model_and_its_lenses(demo_cache: Path, tmp_path: Path) -> None:
    """Lenses of all heads in closed form, and effect lenses of two."""
    cache, lenses, effects = tmp_path / "cache", tmp_path / "lenses", tmp_path / "effects"
    shutil.copytree(demo_cache, cache)
    alens = [sys.executable, "-m", "alens"]
    subprocess.run([*alens, "fit", cache, lenses, "--lens", "regression", "--eval-rows", "1024"], check=True)
    subprocess.run([*alens, "effects", cache, "--heads", "3.1,3.4", "--rows", "512"], check=True)
    subprocess.run([*alens, "fit", cache, effects, "--lens", "effect", "--heads", "3.1,3.4"], check=True)
    script = [
        sys.executable,
        SCRIPT,
        "demo",
        "--lenses",
        lenses,
        "--prompts",
        "12",
        "--keep",
        tmp_path / "kept",
    ]
    ran = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(
        f"\n| {name} | " in ran.stdout for name in ("induction", "copying", "written", "lens", "unembedding")
    )
    assert "these 5 | " in ran.stdout and "5 other heads of these layers, 10 draws | " in ran.stdout
    assert all(f"\n## {part}: " in ran.stdout for part in ("Names", "Capitals", "Agreement"))

    parts = ["--parts", "names,capitals,agreement"]
    again = subprocess.run(
        [*script, *parts, "--effect-lenses", effects],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, read_too = (text.split("\n## Names")[1].splitlines() for text in (ran.stdout, again.stdout))
    assert [line.split("|")[2] for line in kept if line.startswith("| 3.1 |")] == [
        line.split("|")[2] for line in read_too if line.startswith("| 3.1 |")
    ]
    assert "The 2 heads that every reading knows:" in again.stdout and "\n| effect | " in again.stdout
