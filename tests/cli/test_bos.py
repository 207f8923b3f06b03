"""Sequences and prompts that begin with BOS, from the cache to what a lens reads."""

import json
from pathlib import Path

import numpy as np
import pytest

from alens import FitRequest, HeadReader, fit_lenses, load_lenses, open_cache
from alens.fit.settings import FitSettings
from alens.store.document import encode
from alens.store.schema import Plan

from ..bos import BOS, BOS_TEXT, model_with_bos
from ..conftest import Run
from ..outcomes import refusal

SMALL = (
    "--seq-len", 16, "--rows-per-shard", 128, "--max-rows", 640, "--batch-size", 4, "--layers", "0,3",
    "--top-k", 8, "--tail-samples", 8, "--exact-teacher", "--document-column", "document",
)  # fmt: skip
PROMPT = "The ship sailed"


@pytest.fixture(scope="module")
def adding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer puts BOS before a text by itself."""
    return model_with_bos(tmp_path_factory.mktemp("adding") / "model", adds_it=True)


@pytest.fixture(scope="module")
def having(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has BOS, but does not add it."""
    return model_with_bos(tmp_path_factory.mktemp("having") / "model", adds_it=False)


@pytest.fixture(scope="module")
def store(adding: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of `adding`, with no option about BOS."""
    from alens import cli

    store = tmp_path_factory.mktemp("bos") / "cache"
    assert cli.run([str(part) for part in ("cache", adding, "demo", store, *SMALL)]) == 0
    return store


@pytest.fixture(scope="module")
def lenses(store: Path) -> Path:
    """Lenses of two heads of `store`."""
    lenses = store.parent / "lenses"
    settings = FitSettings(layers=(0, 3), heads=(1, 4), batch_rows=64, steps=4)
    fit_lenses(FitRequest(store=store, lenses=lenses, settings=settings, device="cpu"))
    return lenses


@pytest.fixture(scope="module")
def bare(adding: Path, store: Path) -> Path:
    """The same text as in `store`, in sequences of 15 tokens without BOS."""
    from alens import cli

    bare = store.parent / "bare"
    plain = ("--seq-len", 15, "--rows-per-shard", 120, "--max-rows", 600, *SMALL[6:])
    assert cli.run([str(part) for part in ("cache", adding, "demo", bare, *plain, "--no-bos")]) == 0
    return bare


def test_each_sequence_begins_with_it_and_the_rest_is_text(store: Path, bare: Path, run_alens: Run) -> None:
    cache = open_cache(store)
    plan, tokens_BT = cache.plan, np.asarray(cache.tokens)
    assert (plan.settings.bos, plan.tokens.bos, plan.rows) == (True, BOS, 640)
    assert (tokens_BT[:, 0] == BOS).all() and (tokens_BT[:, 1:] != BOS).all()
    assert cache.token_documents is not None
    assert (cache.token_documents[:, 0] == cache.token_documents[:, 1]).all()
    held_out = set(np.unique(cache.token_documents[plan.shards_of_held_out_documents[0] * 8 :]))
    assert not held_out & set(np.unique(cache.token_documents[: plan.shards_of_held_out_documents[0] * 8]))
    assert np.array_equal(np.asarray(open_cache(bare).tokens), tokens_BT[:, 1:])
    assert open_cache(bare).plan.tokens.bos is None
    assert run_alens("verify", store, "--deep", 64).code == 0
    assert f"bos: token {BOS}, before each text" in run_alens("info", store).stdout


def test_the_default_is_what_the_tokenizer_does(
    adding: Path, having: Path, tmp_path: Path, run_alens: Run, small_writes: None
) -> None:
    def first(model: Path | str, *options: object) -> int | None:
        planned = run_alens("plan", model, "demo", *SMALL, *options, "--probe-seconds", 0.1, "--json")
        assert planned.code == 0, planned.stderr
        number: int | None = json.loads(planned.stdout)["text"]["bos"]
        return number

    assert (first(adding), first(adding, "--no-bos")) == (BOS, None)
    assert (first(having), first(having, "--bos")) == (None, BOS)
    assert first("demo", "--bos") == 0  # GPT-2's way: end-of-text begins texts, too


def test_a_tokenizer_without_bos_is_refused(having: Path, tmp_path: Path, run_alens: Run) -> None:
    config = having.parent / "lacking" / "tokenizer_config.json"
    model_with_bos(config.parent, adds_it=False)
    content = {key: value for key, value in json.loads(config.read_text()).items() if key != "bos_token"}
    config.write_text(json.dumps(content))
    outcome = run_alens("cache", config.parent, "demo", tmp_path / "cache", *SMALL, "--bos")
    assert refusal(outcome) == f"--bos: the tokenizer of {config.parent} has no BOS token; leave --bos out"


def test_a_cache_that_was_begun_goes_on_as_it_is(adding: Path, store: Path, run_alens: Run) -> None:
    assert run_alens("cache", adding, "demo", store, *SMALL).code == 0
    assert run_alens("cache", adding, "demo", store, *SMALL, "--bos").code == 0
    refused = run_alens("cache", adding, "demo", store, *SMALL, "--no-bos")
    assert (refused.code, "bos is False (the cache: True)" in refused.stderr) == (2, True)


def test_a_plan_without_bos_is_what_it_was(demo_cache: Path) -> None:
    """A plan from before there was a choice has the same identity, and none was made."""
    body = json.loads((demo_cache / "plan.json").read_text())
    del body["settings"]["bos"], body["tokens"]["bos"], body["sha256"]
    plan = Plan.from_json(encode(body), "plan.json")
    assert (plan, plan.tokens.bos) == (open_cache(demo_cache).plan, None)


def test_prompts_begin_as_the_sequences_of_the_fit_did(
    store: Path, lenses: Path, tmp_path: Path, run_alens: Run
) -> None:
    assert json.loads((lenses / "lens.json").read_text())["bos"] == BOS
    assert f"bos: token {BOS}" in run_alens("info", lenses).stdout
    reader = HeadReader(load_lenses(lenses))
    ids = reader.tokens(PROMPT)
    assert ids == [BOS, *reader.model.tokenizer.encode(PROMPT, add_special_tokens=False).ids]
    assert reader.tokens(BOS_TEXT + PROMPT) == ids
    # The token is at position 0 of what is shown, and a position means the same in every command.
    shown = run_alens("read", lenses, PROMPT, "--position", 0)
    assert f"position 0, after '{BOS_TEXT}'" in shown.stdout
    reading = json.loads(run_alens("read", lenses, PROMPT, "--position", 1, "--json").stdout)
    assert reading[0]["tokens"][0] == BOS_TEXT and reading[0]["before"]["1"].startswith(f"{BOS_TEXT}The")
    given = (lenses, PROMPT, "--layer", 3, "--head", 1, "--tokens", "she", "--strength", "0,1", "--random", 1)
    effects = json.loads(run_alens("inject", *given, "--text", "demo", "--text-tokens", 300, "--json").stdout)
    assert effects["clean"]["tokens"] == 300  # the first token of each window is predicted, too


def test_other_sequences_are_told_of_or_refused(
    store: Path, bare: Path, lenses: Path, adding: Path, tmp_path: Path, run_alens: Run
) -> None:
    judged = run_alens("eval", lenses, bare)
    assert judged.code == 0, judged.stderr
    assert f"fitted on sequences with BOS, and those of {bare} are without" in judged.stderr
    assert "BOS" not in run_alens("eval", lenses, store).stderr
    refused = run_alens("transfer", lenses, store, "--to", bare)
    assert "whether sequences begin with BOS: cache the copy again with --bos" in refusal(
        refused, after_log=True
    )
    assert run_alens("export", lenses, tmp_path / "export").code == 0
    imported = run_alens("import", tmp_path / "export", tmp_path / "imported", "--model", adding)
    assert imported.code == 0, imported.stderr
    assert load_lenses(tmp_path / "imported").record.bos == BOS
