"""`cache_jobs/kubernetes.yaml` without a Kubernetes: what it asks for, and its pods run as processes.

A pod gets the variables and arguments that Kubernetes would give it, and what it ends with meets the rules of the Job.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alens.store.cache_reader import open_cache

from .conftest import plain_environment

ROOT = Path(__file__).parents[2]
JOB = yaml.safe_load((ROOT / "cache_jobs" / "kubernetes.yaml").read_text())


def container() -> dict[str, Any]:
    containers: list[dict[str, Any]] = JOB["spec"]["template"]["spec"]["containers"]
    assert len(containers) == 1
    return containers[0]


def action(code: int, conditions: frozenset[str] = frozenset()) -> str:
    """What the Job does with a pod that failed with this exit code: the first rule that fits, or else it counts."""
    for rule in JOB["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes is not None:
            assert (codes["containerName"], codes["operator"]) == (container()["name"], "In")
            if code in codes["values"]:
                return str(rule["action"])
        elif conditions & {entry["type"] for entry in rule["onPodConditions"] if entry["status"] == "True"}:
            return str(rule["action"])
    return "Count"


def environment(index: int) -> dict[str, str]:
    """What the container of this index gets beside its image's own variables."""
    names = {"JOB_COMPLETION_INDEX": str(index)}
    for entry in container()["env"]:
        if "value" in entry:
            names[entry["name"]] = entry["value"]
        else:
            resource = entry["valueFrom"]["resourceFieldRef"]
            assert resource["containerName"] == container()["name"]
            names[entry["name"]] = container()["resources"]["limits"][resource["resource"].split(".")[1]]
    return names


def arguments(names: dict[str, str]) -> list[str]:
    return [re.sub(r"\$\((\w+)\)", lambda match: names[match[1]], word) for word in container()["args"]]


def test_every_index_is_a_worker_of_all() -> None:
    spec = JOB["spec"]
    assert (JOB["apiVersion"], JOB["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    workers = int(environment(0)["WORKERS"])
    assert spec["completions"] == spec["parallelism"] == workers
    assert arguments(environment(3))[-2:] == ["--worker", f"3/{workers}"]


def test_a_pod_has_the_threads_that_were_asked_for_and_is_offline() -> None:
    names = environment(0)
    assert names["OMP_NUM_THREADS"] == container()["resources"]["requests"]["cpu"] == "4"
    assert (names["HF_HUB_OFFLINE"], names["HF_HOME"]) == ("1", "/data/hub")
    (mount,) = container()["volumeMounts"]
    assert container()["workingDir"] == mount["mountPath"] == "/data"


def test_the_configuration_is_one_of_the_image() -> None:
    name = container()["args"][container()["args"].index("--config") + 1]
    assert name.startswith("/opt/alens/") and (ROOT / name.removeprefix("/opt/alens/")).is_file()


def test_what_a_pod_ends_with_is_what_the_page_says() -> None:
    """The rules need pods that the kubelet does not start again by itself."""
    assert JOB["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert [action(code) for code in (75, 2, 1, 137)] == ["Ignore", "FailJob", "Count", "Count"]
    assert action(137, frozenset({"DisruptionTarget"})) == "Ignore"
    assert JOB["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 30


@pytest.mark.slow
def test_a_worker_whose_node_is_drained_goes_on_in_a_new_pod(
    tmp_path: Path, waiting_alens: Path, wait_until: Callable[..., None]
) -> None:
    """The real alens on the demo: one worker of two is told to stop, and another pod of its index finishes the cache."""

    def pod(index: int, program: str) -> "subprocess.Popen[bytes]":
        names = environment(index) | {
            "WORKERS": "2",
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(tmp_path / "hub"),
        }
        words = arguments(names)
        words[words.index("--config") + 1] = str(ROOT / "cache_jobs" / "demo.toml")
        return subprocess.Popen(
            [program, *words, "--max-rows", "3072"], cwd=tmp_path, env={**plain_environment(), **names}
        )

    plain = str(Path(sys.executable).with_name("alens"))
    assert shutil.which(plain)
    drained = pod(1, str(waiting_alens))
    wait_until(lambda: list(tmp_path.glob("waiting-*")), "a pod in the middle of its work")
    drained.send_signal(signal.SIGTERM)
    wait_until(lambda: list(tmp_path.glob("told-to-stop-*")), "a pod that heard of it")
    (tmp_path / "go").touch()
    code = drained.wait(400)
    assert (code, action(code)) == (75, "Ignore")
    assert pod(0, plain).wait(400) == 0
    assert not open_cache(tmp_path / "demo-cache").sealed
    assert pod(1, plain).wait(400) == 0
    assert open_cache(tmp_path / "demo-cache").sealed
