"""Commands import what they use: reading a record needs no torch, a refusal no model library, a prompt no zarr. The
collector rests meanwhile, and works again afterwards."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = (
    "import gc, json, sys; from alens.cli import run; code = run(sys.argv[1:]); "
    "print(json.dumps([code, sorted(sys.modules), gc.isenabled(), gc.get_freeze_count()]))"
)
Words = Callable[[Path, Path], list[object]]

EXAMPLES = Path(__file__).parents[2] / "docs" / "tutorials" / "examples"
MODELS = {"transformers", "transformer_lens", "datasets", "pandas"}
PICTURES = {"matplotlib", "deepspeed", "scipy.stats"}


@pytest.mark.parametrize(
    ("words", "code", "unused"),
    [
        (lambda lenses, _: ["info", lenses], 0, {"torch", "zarr", "numpy"}),
        (lambda _, cache: ["info", cache], 0, {"torch", "zarr", "rich", *MODELS}),
        (lambda _, cache: ["verify", cache], 0, {"torch", *MODELS}),
        (
            lambda lenses, cache: ["fit", cache, lenses, "--layers", "1"],
            2,
            {"zarr", *MODELS, *PICTURES},
        ),
        (
            lambda lenses, cache: ["eval", lenses, cache, "--rows", "512"],
            0,
            {"transformer_lens", "torch._dynamo", *PICTURES},
        ),
        (
            lambda lenses, _: [
                *("locate", lenses, "--head", "77", "--terms", EXAMPLES / "locate-terms.txt"),
                *("--prompts", EXAMPLES / "locate-women.txt"),
            ],
            2,
            {"zarr", *MODELS, *PICTURES},
        ),
        (lambda lenses, _: ["read", lenses, "He", "--head", "77"], 2, {"zarr", *MODELS, *PICTURES}),
        (lambda lenses, _: ["read", lenses, "He", "--layer", "0"], 0, {"zarr", *PICTURES}),
    ],
)
def test_a_command_imports_what_it_uses(
    demo_lenses: Path, demo_cache: Path, words: Words, code: int, unused: set[str]
) -> None:
    arguments = [str(word) for word in words(demo_lenses, demo_cache)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True, timeout=400
    )
    exit_code, modules, collects, frozen = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == code, done.stderr
    assert code == 0 or "77" in done.stderr or "another fit" in done.stderr, done.stderr
    assert not unused & set(modules)
    assert (collects, frozen) == (True, 0)
