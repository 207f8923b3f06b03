"""The model that lenses or a cache were made with, where it is not at hand: the same lines from every command."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import demo, open_cache
from alens.model import models

from .. import documents
from ..outcomes import refusal

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
    assert line.startswith(f"no-such/model at {OURS} is not a file or directory here, the hub cache ")
    assert f"HF_HUB_OFFLINE is set: run `hf download no-such/model --revision {OURS}`" in line
    assert line.endswith(f"; {root} was made with it: say with --model where it is now")


def test_other_weights_where_the_model_was_are_refused(run_alens: Any, made: Made, retrained: Path) -> None:
    words, root = made(id=str(retrained))
    assert refusal(run_alens(*words)) == (
        f"{retrained} has other weights than the model of {root} ({retrained}): say with --model where that is"
    )


@pytest.fixture
def reconfigured(copy_of: Copy) -> Path:
    """The demo with another activation: the same weights, another function."""
    folder = copy_of(demo.MODEL)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"activation_function": "relu"}))
    return folder


def test_another_configuration_where_the_model_was_is_refused(
    run_alens: Any, made: Made, reconfigured: Path
) -> None:
    words, root = made(id=str(reconfigured))
    assert refusal(run_alens(*words)) == (
        f'{reconfigured} has another configuration (activation_function is "relu", not the default) than the model of '
        f"{root} ({reconfigured}): say with --model where that is"
    )


def test_other_logits_than_were_recorded_are_refused(run_alens: Any, made: Made) -> None:
    """As another version of transformers may give, with the same weights and configuration."""
    record = models.load(models.find("demo"), dtype="float32", device="cpu").source.record
    assert record.probe is not None
    logits = [logit + 0.01 for logit in record.probe["logits"]]
    words, root = made(probe=record.probe | {"logits": logits})
    outcome = run_alens(*words)
    assert outcome.code == 2
    assert outcome.stderr.splitlines()[-1] == (
        f"alens: {demo.MODEL} has other logits for the same tokens (0.01 apart, 0.00134 is rounding) than the model of "
        f"{root}: another version of transformers or TransformerLens may compute another function; use those that it was made with"
    )


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Records as they were before configuration and probe were kept."""
    with monkeypatch.context() as patch:
        patch.setattr("alens.model.configuration.canonical", lambda config: None)
        patch.setattr("alens.model.logit_fingerprint.record", lambda *arguments: None)
        yield patch


OLD = "its configuration was not recorded then: that it computes the same function cannot be checked"
SMALL = ("--seq-len", "32", "--rows-per-shard", "128", "--max-rows", "256", "--top-k", "4", "--tail-samples", "4", "--device", "cpu")  # fmt: skip


def test_an_old_cache_is_finished_and_verified_with_one_line_of_what_cannot_be_checked(
    run_alens: Any, as_before: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, others = tmp_path / "cache", copy_of_demo_with_another_file(tmp_path)
    as_before.setattr(
        "alens.model.weights.files", lambda folder, config: sorted(folder.glob("*.safetensors"))
    )
    assert run_alens("cache", others, "demo", store, *SMALL, "--worker", "0/2").code == 0
    identity = open_cache(store).plan.identity
    as_before.undo()
    warning = f"{store} was made by an earlier alens from {others}: {OLD}"
    outcome = run_alens("cache", others, "demo", store, *SMALL, "--worker", "1/2")
    assert outcome.code == 0 and caplog.messages == [warning], outcome
    caplog.clear()
    assert open_cache(store).sealed and open_cache(store).plan.identity == identity
    outcome = run_alens("verify", store, "--deep", "16", "--device", "cpu")
    assert outcome.code == 0 and caplog.messages == [warning], outcome


def copy_of_demo_with_another_file(tmp_path: Path) -> Path:
    """Its unused file was part of the hash, before."""
    folder = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
    save_file({"unused": torch.ones(2)}, folder / "consolidated.safetensors")
    return folder


def forget(body: dict[str, Any]) -> None:
    del body["model"]["config"], body["model"]["probe"]


def test_old_lenses_are_read_and_judged_with_one_line_of_what_cannot_be_checked(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", forget)
    outcome = run_alens("read", root, "He", "--layer", "0", "--device", "cpu")
    assert outcome.code == 0 and caplog.messages == [f"{root} was made by an earlier alens from demo: {OLD}"]
    caplog.clear()
    outcome = run_alens("eval", root, demo_cache, "--rows", "256", "--device", "cpu")
    assert outcome.code == 0
    assert caplog.messages == [f"{root} was made by an earlier alens: {OLD}"]


def test_lenses_are_not_judged_on_a_cache_of_another_configuration(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, reconfigured: Path, tmp_path: Path
) -> None:
    store = tmp_path / "relu"
    assert run_alens("cache", reconfigured, "demo", store, *SMALL).code == 0
    outcome = run_alens("eval", demo_lenses, store, "--device", "cpu")
    assert refusal(outcome) == (
        f"{demo_lenses} holds lenses of demo, and the model of {store} has another configuration (activation_function "
        'is "relu", not the default): lenses read the model they were fitted on'
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


def shifted(folder: Path) -> Path:
    """The demo with a tokenizer that gives every word the id of its neighbour."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first = min(vocabulary.values())
    tokenizer["model"]["vocab"] = {
        word: first + (number - first + 1) % len(vocabulary) for word, number in vocabulary.items()
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["read", "He"],
        ["compare", "--clean", "He said", "--suspect", "She said"],
        ["inject", "He said", "--layer", "0", "--head", "1", "--tokens", "she"],
    ],
)
def test_another_tokenizer_is_refused(
    run_alens: Any, demo_lenses: Path, copy_of: Copy, words: list[str]
) -> None:
    """It gave other prompts and other lists without a word, before."""
    folder = shifted(copy_of(demo.MODEL))
    outcome = run_alens(words[0], demo_lenses, *words[1:], "--model", folder, "--device", "cpu")
    assert outcome.code == 2 and outcome.stderr.splitlines()[-1] == (
        f"alens: {folder} has another tokenizer than {demo_lenses} was fitted with: its tokens are other words; say with "
        "--model where the model is, with its own tokenizer"
    )


def test_lenses_of_before_a_tokenizer_was_recorded_are_read_with_a_warning(
    run_alens: Any, demo_lenses: Path, copy_of: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body.pop("tokenizer_sha256"))
    assert run_alens("read", root, "He", "--layer", "0", "--device", "cpu").code == 0
    assert caplog.messages == [
        f"{root} was made by an earlier alens: its tokenizer was not recorded then, so whether that of {demo.MODEL} is the "
        "same cannot be checked"
    ]


def test_the_tokenizer_goes_out_and_comes_back_with_the_lenses(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy, tmp_path: Path
) -> None:
    known = open_cache(demo_cache).plan.tokens.tokenizer_sha256
    exported, back, folder = tmp_path / "exported", tmp_path / "back", shifted(copy_of(demo.MODEL))
    assert run_alens("export", demo_lenses, exported, "--form", "z").code == 0
    assert documents.read(exported / "config.json")["tokenizer_sha256"] == known
    outcome = run_alens("import", exported, back, "--model", folder)
    assert outcome.code == 2 and "holds lenses of another tokenizer than that of" in outcome.stderr
    assert run_alens("import", exported, back, "--model", "demo").code == 0
    for lenses in (demo_lenses, back):
        assert documents.read(lenses / "lens.json")["tokenizer_sha256"] == known
