"""docs/object-stores.md: its commands run on a cache that lies on a server of the tests."""

import re
import shlex
from pathlib import Path

import pytest

from ..conftest import Run
from ..object_servers import faulty_server
from .pages import ROOT

PAGE = ROOT / "docs" / "object-stores.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("alens ")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow  # three fits
def test_every_command_of_the_page_runs(
    far_demo: str, demo_cache: Path, tmp_path: Path, run_alens: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with faulty_server(demo_cache) as server:
        places = {
            "gpt2-cache": str(demo_cache),
            "s3://bucket/gpt2-cache": far_demo,
            "https://host.org/gpt2-cache": server.endpoint,
            "/shared/gpt2-cache": str(demo_cache),
            "/local/$USER/alens": str(tmp_path / "local"),
            "11": "3",
        }
        for number, command in enumerate(commands()):
            words = [places.get(word, word) for word in command]
            if words[0] == "fit":
                words[2] = f"{words[2]}-{number}" if number > 1 else words[2]
                words += ["--steps", "2", "--eval-rows", "1024", "--batch-rows", "256", "--device", "cpu"]
            assert run_alens(*words).code == 0, words
    assert number == 6
