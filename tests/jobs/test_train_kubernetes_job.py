"""`train_jobs/kubernetes.yaml` without a Kubernetes: the command of a pod, and the rules that it shares with stage one.

Kubernetes puts values in the place of $(NAME), and leaves $(command) to the shell.
"""

import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
JOB = yaml.safe_load((ROOT / "train_jobs" / "kubernetes.yaml").read_text())
CACHE_JOB = yaml.safe_load((ROOT / "cache_jobs" / "kubernetes.yaml").read_text())


def test_an_index_fits_its_layer(stand_ins: Any, tmp_path: Path) -> None:
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    stand_ins.add("alens", "exit 75")
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path,
        env={**stand_ins.environment, "JOB_COMPLETION_INDEX": "7"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (75, "")
    config = "/opt/alens/train_jobs/gpt2-layer.toml"
    assert stand_ins.calls("alens") == [
        ["fit", "gpt2-bookcorpus", "lenses/layer-07", "--config", config, "--layers", "7"]
    ]
    assert (ROOT / config.removeprefix("/opt/alens/")).is_file()


def test_stops_and_failures_mean_what_they_mean_in_stage_one() -> None:
    """The rules are tested there."""
    for name in ("completionMode", "backoffLimitPerIndex", "podFailurePolicy"):
        assert JOB["spec"][name] == CACHE_JOB["spec"][name]
    pods = [job["spec"]["template"]["spec"] for job in (JOB, CACHE_JOB)]
    for name in ("restartPolicy", "terminationGracePeriodSeconds", "volumes"):
        assert pods[0][name] == pods[1][name]
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"]
