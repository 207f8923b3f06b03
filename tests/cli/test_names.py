"""A store or lenses that are named like the hub id of the model or the text, in the directory where one works."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from alens import demo
from alens.sources import local_or_hub

from ..sources.test_hub import add_repository

SETTINGS = (
    "--seq-len",
    32,
    "--rows-per-shard",
    128,
    "--max-rows",
    256,
    "--layers",
    0,
    "--top-k",
    4,
    "--tail-samples",
    4,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a hub cache elsewhere that holds the model `me/tiny` and the text `me/text`."""
    hub_cache = tmp_path / "hub"
    files = {path.name: path for path in demo.MODEL.iterdir()}
    add_repository(hub_cache, "models--me--tiny", "main", "a" * 40, files)
    add_repository(hub_cache, "datasets--me--text", "main", "b" * 40, {"text.parquet": demo.CORPUS})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def model(store: Path) -> str:
    return str(json.loads((store / "plan.json").read_text())["model"]["id"])


@pytest.mark.parametrize("name", ["me/tiny", "me/text"])
def test_a_store_named_like_the_model_or_text_is_not_taken_for_it(
    run_alens: Any, here: Path, name: str
) -> None:
    cache = ("cache", "me/tiny", "me/text", name, *SETTINGS)
    assert run_alens(*cache).code == 0
    what = "model" if name == "me/tiny" else "text"
    says = f"{here / name} is a cache, not a {what}: taking {name} of the hub\n"
    again = run_alens(*cache)
    assert again.code == 0 and says in again.stderr
    shutil.rmtree(here / name / "commits")  # the later jobs, before there is a plan
    (here / name / "plan.json").unlink()
    unfinished = run_alens(*cache)
    assert unfinished.code == 0 and says in unfinished.stderr
    assert model(here / name) == "me/tiny"
    if name == "me/tiny":
        checked = run_alens("verify", name, "--deep", 8)
        assert checked.code == 0 and says in checked.stderr


def test_lenses_named_like_their_model_are_read_with_the_model_of_the_hub(run_alens: Any, here: Path) -> None:
    assert run_alens("cache", "me/tiny", "demo", "store", *SETTINGS).code == 0
    assert run_alens("fit", "store", "me/tiny", "--steps", 2, "--batch-rows", 32, "--eval-rows", 31).code == 0
    read = run_alens("read", "me/tiny", "The king")
    assert read.code == 0
    assert (
        f"{here / 'me/tiny'} is a directory of lenses, not a model: taking me/tiny of the hub\n"
        in read.stderr
    )


def test_a_model_directory_of_the_recorded_name_is_taken_and_said(run_alens: Any, here: Path) -> None:
    assert run_alens("cache", "me/tiny", "demo", "store", *SETTINGS).code == 0
    shutil.copytree(demo.MODEL, here / "me/tiny")
    checked = run_alens("verify", "store", "--deep", 8)
    assert checked.code == 0
    assert (
        f"taking the directory {here / 'me/tiny'} for the model me/tiny that store was made with"
        in checked.stderr
    )


def test_a_store_called_demo_is_made_of_the_bundled_model_and_text(run_alens: Any, here: Path) -> None:
    for _ in range(2):
        assert run_alens("cache", "demo", "demo", "demo", *SETTINGS).code == 0
    plan = json.loads((here / "demo/plan.json").read_text())
    assert (plan["model"]["id"], plan["corpus"]["id"]) == ("demo", "demo")


@pytest.mark.parametrize(
    ("name", "entry", "says"),
    [
        (
            "store",
            "plan.json",
            "it is a cache; give a Hugging Face directory, a GGUF file, a hub id, or `demo`",
        ),
        ("lenses", "fit.json", "it is a directory of lenses; give"),
        ("empty", None, "it is an empty directory; give"),
        ("text", "a.txt", "it has no config.json; give"),
        (
            "adapter",
            "adapter_config.json",
            "it is an adapter alone; load it with its model, `merge_and_unload()`,",
        ),
    ],
)
def test_what_is_no_model_is_said_by_what_it_is(
    run_alens: Any, here: Path, name: str, entry: str | None, says: str
) -> None:
    (here / name).mkdir()
    if entry is not None:
        (here / name / entry).touch()
    outcome = run_alens("cache", f"./{name}", "demo", "new")
    assert (outcome.code, outcome.stderr.count("alens: ")) == (2, 1)
    assert f"alens: ./{name} is not a model directory: {says}" in outcome.stderr
    assert not (here / "new").exists()


def test_a_file_is_no_model(run_alens: Any, here: Path) -> None:
    (here / "model.safetensors").touch()
    outcome = run_alens("plan", "model.safetensors", "demo")
    assert outcome.code == 2 and "model.safetensors is not a model directory: it is a file" in outcome.stderr


def test_what_alens_makes_is_known_by_what_lies_in_it(
    demo_cache: Path, demo_lenses: Path, tmp_path: Path
) -> None:
    assert local_or_hub.made_by_alens(demo_cache) == "a cache"
    assert local_or_hub.made_by_alens(demo_lenses) == "a directory of lenses"
    assert local_or_hub.made_by_alens(demo.MODEL) is None
    (tmp_path / "texts/commits").mkdir(parents=True)  # a text about commits is nothing of alens
    assert local_or_hub.made_by_alens(tmp_path / "texts") is None


def test_a_store_in_the_place_of_a_model_or_text_is_said_where_the_hub_has_none(
    run_alens: Any, here: Path
) -> None:
    (here / "store").mkdir()
    (here / "store/plan.json").touch()
    for arguments, what in ((("store", "demo"), "model"), (("demo", "store"), "text")):
        code, _, err = run_alens("cache", *arguments, "new")
        assert code == 2
        assert (
            f"alens: {here / 'store'} is a cache, not a {what}; as an id of the hub: " in err.splitlines()[-1]
        )
