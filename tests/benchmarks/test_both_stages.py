"""The benchmark of both stages runs on any model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/both_stages.py"


@pytest.mark.slow
def test_a_model_of_yours(tmp_path: Path) -> None:
    sizes = ["--seq-len", "32", "--batch-size", "4", "--rows-per-shard", "512"]
    rounds = ["--rounds", "2", "--shards-a-round", "1", "--fit-steps", "0", "--clock", "cpu"]
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--model", "demo", *sizes, *rounds],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(ran.stdout)
    assert report["model"] == {"layers": 4, "heads": 6, "d_vocab": 4096}
    assert len(report["ratio_cache_to_bare"]) == 2
    assert min(report["ratio_cache_to_bare"]) > 0.5
    assert "stage_two" not in report
