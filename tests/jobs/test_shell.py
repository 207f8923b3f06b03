"""The job scripts are sound shell, and may be run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for folder in ("cache_jobs", "train_jobs") for path in (ROOT / folder).glob("*.sh"))

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_there_are_scripts() -> None:
    assert {"slurm.sh", "pbs.sh"} <= {script.name for script in SCRIPTS}


@every_script
def test_a_script_is_strict_and_can_be_started(script: Path) -> None:
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in script.read_text()
    assert os.access(script, os.X_OK)


@every_script
def test_bash_understands_a_script(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@every_script
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck (Debian: shellcheck)")
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
