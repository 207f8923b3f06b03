"""The recipes of images, `cache_jobs/alens.def` and `cache_jobs/Containerfile`, and what both run, `install.sh`.

No image is built here: there is neither Apptainer nor a registry of images. What they copy must be all that the
installation needs, and the installation runs with a stand-in for Python.
"""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "cache_jobs" / "install.sh"
SECTIONS = ("arguments", "files", "post", "environment", "runscript", "test")
PYTHON = """\
if [ "$2" = venv ]; then
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    sed 's/python3/made-alens/g' "$0" > "$4/bin/alens"
    chmod +x "$4/bin/alens"
fi
"""


def sections() -> dict[str, list[str]]:
    """As Apptainer reads a definition: a line whose first word begins with % opens a section."""
    name, lines = "header", {"header": list[str]()}
    for line in (ROOT / "cache_jobs" / "alens.def").read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].lower()
            assert name not in lines, f"{name} stands twice"
            lines[name] = []
        elif line.strip() and not line.strip().startswith("#"):
            lines[name].append(line.strip())
    return lines


def copied_by_the_container_file() -> tuple[dict[str, str], list[list[str]]]:
    """What COPY puts where, and the other instructions."""
    places, others = {}, []
    for line in (ROOT / "cache_jobs" / "Containerfile").read_text().splitlines():
        words = line.split() if line and not line.startswith("#") else ["#"]
        if words[0] == "COPY":
            for name in words[1:-1]:
                places[name] = words[-1] + name if words[-1].endswith("/") else words[-1]
        elif words[0] != "#":
            others.append(words)
    return places, others


def test_the_definition_has_the_sections_that_apptainer_knows() -> None:
    lines = sections()
    assert lines["header"] == ["Bootstrap: docker", "From: python:3.11-slim"]
    assert set(lines) == {"header", *SECTIONS}
    # Each value that is filled in has a default: without --build-arg the build is the same.
    text = (ROOT / "cache_jobs" / "alens.def").read_text()
    assert re.findall(r"{{ *(\w+) *}}", text) == [line.split("=")[0] for line in lines["arguments"]]
    for name in ("post", "environment", "runscript", "test"):
        done = subprocess.run(["sh", "-n"], input="\n".join(lines[name]), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), name


def test_both_recipes_copy_what_the_installation_needs_and_the_examples() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", "constraints.txt", project["project"]["readme"], "LICENSE", "pipeline"}
    files = dict(line.split() for line in sections()["files"])
    assert set(files) == needed | {"cache_jobs", "train_jobs"} and set(files.values()) == {"/opt/alens/"}
    assert all((ROOT / name).exists() for name in files)
    places, _ = copied_by_the_container_file()
    assert places == {name: f"/opt/alens/{name}" for name in files}


def test_both_recipes_run_the_same_installation() -> None:
    (post,) = sections()["post"]
    _, others = copied_by_the_container_file()
    run = next(words for words in others if words[0] == "RUN")
    assert shlex.split(post)[1:] == shlex.split(" ".join(run))[2:]
    assert post.endswith("bash /opt/alens/cache_jobs/install.sh /opt/venv")
    assert sections()["runscript"] == ['exec /opt/venv/bin/alens "$@"']
    assert others[-1] == ["ENTRYPOINT", '["/opt/venv/bin/alens"]']


@pytest.mark.parametrize("index", ["", "a build for CPUs"])
def test_torch_is_installed_first_and_at_the_tested_version(
    stand_ins: Any, tmp_path: Path, index: str
) -> None:
    checkout = tmp_path / "it's a checkout"
    (checkout / "cache_jobs").mkdir(parents=True)
    shutil.copy(INSTALL, checkout / "cache_jobs")
    stand_ins.add("python3", PYTHON)
    target = tmp_path / "a new environment"
    done = subprocess.run(
        ["bash", str(checkout / "cache_jobs" / "install.sh"), str(target)],
        env={**stand_ins.environment, "TORCH_INDEX": index},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert (done.returncode, done.stderr) == (0, "")
    made, torch, package = stand_ins.calls("python3")
    assert made == ["-m", "venv", "--", str(target)]
    options = [
        "--quiet",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--constraint",
        f"{checkout}/cache_jobs/../constraints.txt",
    ]
    assert torch == [
        *("-m", "pip", "install"),
        *options,
        *(["--index-url", index] if index else []),
        "torch",
    ]
    assert package == ["-m", "pip", "install", *options, f"{checkout}/cache_jobs/..[s3]"]
    assert stand_ins.calls("made-alens") == [["--help"]]


def test_the_installation_asks_for_its_directory() -> None:
    done = subprocess.run(["bash", str(INSTALL)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "name the directory of the new environment" in done.stderr
