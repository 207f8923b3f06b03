"""`cache_jobs/skypilot.yaml` without a cloud: its `run` with the variables that SkyPilot sets on each node.

The nodes share no disk; what they have in common is an S3 server on this machine.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alens.remote.address import address
from alens.remote.objects import Objects

from ..object_servers import S3Server
from .conftest import plain_environment

ROOT = Path(__file__).parents[2]
TASK = yaml.safe_load((ROOT / "cache_jobs" / "skypilot.yaml").read_text())


def run(node: int, nodes: int, cwd: Path, **names: str) -> "subprocess.CompletedProcess[str]":
    """The task on one node. `bash -i` is SkyPilot's; its own lines about a terminal are left out here."""
    given = {name: value for name, value in TASK["envs"].items() if value is not None}
    sky = {"SKYPILOT_NODE_RANK": str(node), "SKYPILOT_NUM_NODES": str(nodes)}
    return subprocess.run(
        ["bash", "-c", TASK["run"]],
        cwd=cwd,
        env={**plain_environment(), **given, **sky, "HOME": str(cwd / "home"), **names},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.fixture
def node(stand_ins: Any, tmp_path: Path) -> Path:
    """A place where `~/alens/bin/alens` records its calls: `info` says MISSING, or fails where nothing is there."""
    then = 'case $1 in info) [ -n "${MISSING-}" ] || exit "${INFO_CODE:-0}"; echo "$MISSING" ;; *) exit "${CODE:-0}" ;; esac'
    program = stand_ins.add("alens", then)
    place = tmp_path / "home" / "alens" / "bin"
    place.mkdir(parents=True)
    (place / "alens").symlink_to(program)
    return tmp_path


def shares(stand_ins: Any) -> list[str]:
    return [call[-1] for call in stand_ins.calls("alens") if call[0] == "cache"]


def test_the_task_says_what_a_stop_means_and_asks_for_its_place() -> None:
    assert TASK["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert TASK["envs"]["STORE_URL"] is None
    config = (ROOT / TASK["envs"]["CONFIG"]).read_text()
    assert re.search(rf'^store = "{TASK["envs"]["STORE"]}"', config, re.MULTILINE)
    for part in ("setup", "run"):
        done = subprocess.run(["bash", "-n"], input=TASK[part], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), part


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck (Debian: shellcheck)")
@pytest.mark.parametrize("part", ["setup", "run"])
def test_shellcheck_finds_nothing(part: str) -> None:
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "-"], input=TASK[part], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_nodes_share_the_work_that_is_missing_and_send_each_share(stand_ins: Any, node: Path) -> None:
    done = run(1, 3, node, STORE_URL="s3://b/x", WORKERS="12", MISSING="1,3-8,10")
    assert done.returncode == 0, done.stderr
    assert shares(stand_ins) == ["1/12", "4/12", "7/12", "10/12"]
    names = [call[0] for call in stand_ins.calls("alens")]
    assert names == ["info", *["cache", "push"] * 4]
    assert stand_ins.calls("alens")[2] == ["push", TASK["envs"]["STORE"], "s3://b/x"]


@pytest.mark.parametrize(("code", "asked"), [("2", ["0/4", "2/4"]), ("0", [])])
def test_nothing_there_yet_is_all_missing_and_a_whole_cache_is_not(
    stand_ins: Any, node: Path, code: str, asked: list[str]
) -> None:
    assert run(0, 2, node, STORE_URL="s3://b/x", WORKERS="4", INFO_CODE=code).returncode == 0
    assert shares(stand_ins) == asked


def test_a_stop_ends_the_task_with_its_code(stand_ins: Any, node: Path) -> None:
    assert run(0, 2, node, STORE_URL="s3://b/x", WORKERS="4", MISSING="0-3", CODE="75").returncode == 75
    assert [call[0] for call in stand_ins.calls("alens")] == ["info", "cache"]


@pytest.mark.slow
def test_two_nodes_without_a_shared_disk_seal_one_cache(tmp_path: Path, s3: S3Server) -> None:
    """The real alens on the demo."""
    place = f"s3://{s3.new_bucket()}/demo"
    names = {"CONFIG": "demo.toml", "STORE": "demo-cache", "WORKERS": "2", "OMP_NUM_THREADS": "1"}
    config = (ROOT / "cache_jobs" / "demo.toml").read_text().replace("12_288", "1_024")
    for node in (0, 1):
        cwd = tmp_path / f"node-{node}"
        (cwd / "home" / "alens" / "bin").mkdir(parents=True)
        (cwd / "home" / "alens" / "bin" / "alens").symlink_to(Path(sys.executable).with_name("alens"))
        (cwd / "demo.toml").write_text(config)
        done = run(node, 2, cwd, STORE_URL=place, **names)
        assert done.returncode == 0, done.stderr
        where = address(place)
        assert where is not None
        assert Objects(where).exists("MANIFEST.json") == (node == 1)
    assert f"sealed: {place}" in done.stdout
    again = run(0, 2, cwd, STORE_URL=place, **names)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
