"""Lenses that are kept beside the unembedding, through every command: they say what the same lenses say as E x V."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from alens import cli, load_lenses

COMMANDS = {
    "eval": "eval {lenses} {cache} --rows 512",
    "read": "read {lenses} {prompt} --token her --top 3",
    "locate": "locate {lenses} --terms {terms} --prompts {men} --control {women} --permutations 19",
    "compare": "compare {lenses} --clean {men} --suspect {women} --resamples 9",
    "inject": "inject {lenses} {prompt} --layer 3 --head 1 --tokens her --strength 0,1 --random 1",
    "basis": "basis {lenses} {cache} --layers 3 --heads 1 --rows 64 --sequences 2 --directions 4",
    "transfer": "transfer {lenses} {cache} --rows 128",
    "copy": "transfer {lenses} {cache} --to {copy} --rows 128",
}


def run_once(*words: object) -> str:
    """What a command prints that ends well; for fixtures that are shared."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.run([str(word) for word in words]) == 0, err.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module", params=["translator", "regression"])
def lenses(request: pytest.FixtureRequest, demo_cache: Path, shared: Path) -> Path:
    """Lenses of heads 1 and 4 of layers 0 and 3 of the demo, of each design that has this form."""
    root = shared / request.param
    sizes = "--layers 0,3 --heads 1,4 --eval-rows 1024 --device cpu"
    steps = "--steps 30 --batch-rows 256" if request.param == "translator" else ""
    run_once("fit", demo_cache, root, "--lens", request.param, *sizes.split(), *steps.split())
    return root


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unembedded")


@pytest.fixture(scope="module")
def affine(lenses: Path) -> Path:
    """The same lenses with a weight and a bias: exported, and imported again."""
    out, back = (lenses.with_name(f"{lenses.name}-{end}") for end in ("out", "affine"))
    run_once("export", lenses, out, "--form", "z", "--dtype", "float32")
    run_once("import", out, back, "--model", "demo")
    return back


@pytest.fixture(scope="module")
def words(demo_cache: Path, rotated_cache: Path, shared: Path) -> dict[str, object]:
    """What the commands above name."""
    (shared / "terms.txt").write_text("he\nher\n")
    for name, nouns in (("men", "man boy king father son"), ("women", "woman girl queen mother aunt")):
        (shared / f"{name}.txt").write_text("".join(f"The {noun} said that\n" for noun in nouns.split()))
    files = {name: shared / f"{name}.txt" for name in ("terms", "men", "women")}
    return {**files, "cache": demo_cache, "copy": rotated_cache, "prompt": "He took her hand and"}


CLOSE_RACES = {"p", "p_corrected", "appear", "vanish"}
"""A p-value of nine or twenty resamplings moves by one of them, and rare tokens with nearly equal changes change places."""


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two documents differ by more than rounding, and what is left out where few rows are read."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one if key not in CLOSE_RACES]
        return [line for key in keys for line in differences(one[key], other.get(key), f"{where}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for place, pair in enumerate(zip(one, other, strict=True))
            for line in differences(*pair, f"{where}[{place}]")
        ]
    numbers = all(isinstance(value, int | float) for value in (one, other))
    same = one == pytest.approx(other, rel=0.03, abs=0.003) if numbers else one == other
    return [] if same else [f"{where}: {one} and {other}"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_says_of_the_same_lenses_as_e_by_v(
    command: str, lenses: Path, affine: Path, words: dict[str, object]
) -> None:
    assert [load_lenses(root).record.form for root in (lenses, affine)] == ["unembedded", "affine"]
    documents = []
    for root in (lenses, affine):
        line = [word.format(**words, lenses=root) for word in COMMANDS[command].split()]
        text = run_once(*line, "--device", "cpu", "--json")
        documents.append(json.loads(text.replace(str(root), "LENSES")))
    assert differences(*documents) == []


def test_the_directory_is_published_whole(lenses: Path) -> None:
    body = json.loads(run_once("publish", lenses, "--repo", "me/lenses", "--json"))
    names = {file["path"] for file in body["files"]}
    assert {"unembedding.safetensors", "output.safetensors", "layer-00.safetensors", "lens.json"} <= names


def test_a_head_is_saved_as_e_by_d(lenses: Path, affine: Path) -> None:
    ours, theirs = (
        load_lenses(root).record.files["layer-03.safetensors"]["bytes"] for root in (lenses, affine)
    )
    assert ours < theirs / 10
