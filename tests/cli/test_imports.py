"""Commands import what they use: reading a record needs no torch, a refusal no model library, a prompt no zarr."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = (
    "import json, sys; from alens.cli import run; code = run(sys.argv[1:]); "
    "print(json.dumps([code, sorted(name for name in sys.modules if '.' not in name)]))"
)
Words = Callable[[Path, Path], list[object]]


@pytest.mark.parametrize(
    ("words", "code", "unused"),
    [
        (lambda lenses, _: ["info", lenses], 0, {"torch", "zarr", "numpy"}),
        (lambda _, cache: ["info", cache], 0, {"torch", "transformers", "rich"}),
        (lambda _, cache: ["verify", cache], 0, {"torch", "transformers"}),
        (lambda lenses, _: ["read", lenses, "He", "--head", "77"], 2, {"transformers", "zarr", "matplotlib"}),
        (
            lambda lenses, _: ["read", lenses, "He", "--layer", "0"],
            0,
            {"zarr", "matplotlib", "deepspeed"},
        ),
    ],
)
def test_a_command_imports_what_it_uses(
    demo_lenses: Path, demo_cache: Path, words: Words, code: int, unused: set[str]
) -> None:
    arguments = [str(word) for word in words(demo_lenses, demo_cache)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True, timeout=400
    )
    exit_code, modules = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == code, done.stderr
    assert not unused & set(modules)
