"""The model that lenses or a cache were made with, where it is not at hand: the same lines from every command."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from alens import demo

from .. import documents

Copy = Callable[[Path], Path]
Made = Callable[..., tuple[list[Any], Path]]
OURS, OTHERS = "a" * 40, "b" * 40


@pytest.fixture(params=["read", "verify"])
def made(request: pytest.FixtureRequest, demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> Made:
    """Lenses or a cache whose record of the model is changed, and the command that runs that model."""

    def make(**changes: Any) -> tuple[list[Any], Path]:
        if request.param == "read":
            root = copy_of(demo_lenses)
            documents.edit(root / "lens.json", lambda body: body["model"].update(changes))
            return ["read", root, "He", "--layer", "0", "--device", "cpu"], root
        root = copy_of(demo_cache)
        documents.edit(root / "plan.json", lambda body: body["model"].update(changes))
        return ["verify", root, "--deep", "8", "--device", "cpu"], root

    return make


@pytest.fixture
def retrained(copy_of: Copy) -> Path:
    """The demo with one other weight."""
    folder = copy_of(demo.MODEL)
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, folder / "model.safetensors", {"format": "pt"})
    return folder


def refusal(outcome: Any) -> str:
    """The one line of a request that was refused before anything else was done."""
    assert (outcome.code, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1), outcome
    return str(outcome.stderr).removeprefix("alens: ").rstrip()


def test_a_model_that_is_not_on_this_machine_is_asked_for(run_alens: Any, made: Made) -> None:
    words, root = made(id="/nowhere/model")
    line = refusal(run_alens(*words))
    assert line.startswith("/nowhere/model does not exist: ")
    assert line.endswith(f"; {root} was made with it: say with --model where it is now")


def test_a_named_model_that_is_not_there_is_the_callers(run_alens: Any, made: Made) -> None:
    words, root = made()
    line = refusal(run_alens(*words, "--model", "/nowhere/model"))
    assert line.startswith("/nowhere/model does not exist: ") and str(root) not in line


def test_offline_the_line_says_what_to_fetch_and_at_which_revision(run_alens: Any, made: Made) -> None:
    words, root = made(id="no-such/model", revision=OURS)
    line = refusal(run_alens(*words))
    assert line.startswith(f"no-such/model at {OURS} is no file or directory here, the hub cache ")
    assert f"HF_HUB_OFFLINE is set: run `hf download no-such/model --revision {OURS}`" in line
    assert line.endswith(f"; {root} was made with it: say with --model where it is now")


def test_other_weights_where_the_model_was_are_refused(run_alens: Any, made: Made, retrained: Path) -> None:
    words, root = made(id=str(retrained))
    assert refusal(run_alens(*words)) == (
        f"{retrained} has other weights than the model of {root} ({retrained}): say with --model where that is"
    )


def test_the_revision_is_the_recorded_one(
    run_alens: Any, made: Made, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub id alone means its main branch, which others have moved on."""
    repository = tmp_path / "hub" / "models--some--gpt2"
    for commit, folder in ((OURS, demo.MODEL), (OTHERS, retrained)):
        shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(OTHERS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    words, root = made(id="some/gpt2", revision=OURS)
    assert refusal(run_alens(*words, "--model", "some/gpt2")) == (
        f"some/gpt2 has other weights than the model of {root} (some/gpt2 at {OURS}): say with --model where that is"
    )
    outcome = run_alens(*words)
    assert outcome.code == 0, outcome.stderr
