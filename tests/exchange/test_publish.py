"""The bundle of `alens publish`: what it holds, what it leaves out, and what is checked."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alens import HeadReader, load_lenses, open_cache
from alens.errors import DamageError, RequestError
from alens.exchange import bundle, local_paths
from alens.exchange.bundle import Bundle, BundleFile
from alens.exchange.request import BundleRequest, UploadSettings
from alens.lens.effect_lenses import load_effect_lenses
from alens.store.schema import Plan

from .. import documents

Copy = Callable[[Path], Path]


def prepared(lenses: Path, *, store: Path | None = None, figures: tuple[Path, ...] = ()) -> Bundle:
    request = BundleRequest(lenses=lenses, repository="me/lenses", store=store, figures=figures)
    return bundle.prepare(request)


def content(made: Bundle, path: str) -> bytes:
    file: BundleFile = next(file for file in made.files if file.path == path)
    return file.source if isinstance(file.source, bytes) else file.source.read_bytes()


def rewrite(lenses: Path, **changes: object) -> None:
    """Change fields of `lens.json`."""
    documents.edit(lenses / "lens.json", lambda body: body.update(changes))


@pytest.fixture
def private_lenses(demo_lenses: Path, copy_of: Copy) -> Path:
    """Lenses whose `lens.json` names the paths of model and text."""
    lenses = copy_of(demo_lenses)
    body = json.loads((lenses / "lens.json").read_text())
    rewrite(
        lenses,
        model={**body["model"], "id": "/home/ada/models/secret-gpt"},
        cache={**body["cache"], "corpus": {"id": "/home/ada/texts", "revision": None, "split": "train"}},
        fit={
            **body["fit"],
            "origin": {"note": "taken from /home/ada/old/run-7, see https://example.org/a/b"},
        },
        software={**body["software"], "host": "adas-laptop"},
    )
    return lenses


@pytest.fixture
def private_cache(demo_cache: Path, copy_of: Copy) -> Path:
    """A cache whose plan names the paths of model and text, and the host; its identity is that of the demo cache."""
    store = copy_of(demo_cache)
    plan = open_cache(store).plan
    private = dataclasses.replace(
        plan,
        model=dataclasses.replace(plan.model, id="/home/ada/models/secret-gpt"),
        corpus=dataclasses.replace(plan.corpus, id="/home/ada/texts"),
        created={**plan.created, "host": "adas-laptop"},
    )
    (store / "plan.json").write_bytes(private.to_json())
    return store


def test_nothing_but_what_lens_json_names(demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> None:
    lenses = copy_of(demo_lenses)
    for name in (".secret", "notes.txt", "layer-09.safetensors", ".layer-00.safetensors.x.partial"):
        (lenses / name).write_text("mine")
    made = prepared(lenses, store=demo_cache)
    assert [file.path for file in made.files] == [
        "README.md",
        "lens.json",
        "layer-00.safetensors",
        "layer-03.safetensors",
        "output.safetensors",
        "figures/held-out-kl.png",
        "figures/held-out.json",
        "cache/plan.json",
        "cache/MANIFEST.json",
    ]


def test_a_bundle_on_disk_is_a_lens_directory(demo_lenses: Path, tmp_path: Path) -> None:
    made = prepared(demo_lenses)
    bundle.write(made, tmp_path / "out")
    ours, theirs = (load_lenses(folder) for folder in (demo_lenses, tmp_path / "out"))
    assert ours.layer(3).weight_HEV.equal(theirs.layer(3).weight_HEV)
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"README.md", "lens.json", "figures"}
    again = prepared(tmp_path / "out")
    assert [file.sha256 for file in again.files] == [file.sha256 for file in made.files]


def test_figures_are_those_of_lens_json(demo_lenses: Path) -> None:
    made = prepared(demo_lenses)
    record = load_lenses(demo_lenses).record
    body = json.loads(content(made, "figures/held-out.json"))
    assert body["figures"][3] == {"layer": 3, "head": 4, **record.held_out["3"][1]}
    assert content(made, "figures/held-out-kl.png").startswith(b"\x89PNG")
    card = content(made, "README.md").decode()
    assert f"| 3.4 | {record.held_out['3'][1]['kl']:.4f} |" in card
    assert "![held-out-kl](figures/held-out-kl.png)" in card


def test_the_card_is_the_same_each_time_and_says_how_to_read(demo_lenses: Path) -> None:
    first, second = prepared(demo_lenses), prepared(demo_lenses)
    assert first.files == second.files
    card = content(first, "README.md").decode()
    assert 'alens read hf://me/lenses "' in card
    assert "--model" not in card
    assert "# license: yours to choose" in card


def test_the_card_of_effect_lenses_says_what_they_add_and_how_far_to_believe_it(
    demo_effect_lenses: Path,
) -> None:
    made = prepared(demo_effect_lenses)
    card = content(made, "README.md").decode()
    assert "# What attention heads of demo add" in card and "distribution over its vocabulary" not in card
    assert 'alens read LENSES "The man worked as a" --effect hf://me/lenses' in card
    record = load_effect_lenses(demo_effect_lenses).record
    explained = record.fit["effects"]["3"][0]["explained"]["share"]
    assert f"| 3.1 | {explained:.3f}" in card
    assert not any(line.startswith("held-out figures") for line in made.missing)


def test_paths_and_hosts_stay_at_home(private_lenses: Path, private_cache: Path) -> None:
    made = prepared(private_lenses, store=private_cache)
    for file in made.files:
        if not file.path.endswith(".safetensors"):
            text = content(made, file.path)
            assert b"/home/ada" not in text, file.path
            assert b"adas-laptop" not in text, file.path
    assert {(one.file, one.field, one.becomes) for one in made.shortened} == {
        ("lens.json", "model.id", "local:secret-gpt"),
        ("lens.json", "cache.corpus.id", "local:texts"),
        (
            "lens.json",
            "fit.origin.note",
            "taken from local:run-7, see https://example.org/a/b",
        ),
        ("cache/plan.json", "model.id", "local:secret-gpt"),
        ("cache/plan.json", "corpus.id", "local:texts"),
    }


def test_a_plan_without_its_places_is_the_same_plan(
    private_lenses: Path, private_cache: Path, demo_cache: Path
) -> None:
    made = prepared(private_lenses, store=private_cache)
    plan = Plan.from_json(content(made, "cache/plan.json"), "the published plan")
    assert plan.identity == open_cache(demo_cache).plan.identity
    assert plan.corpus.id == "local:texts"
    assert content(made, "cache/MANIFEST.json") == (demo_cache / "MANIFEST.json").read_bytes()


def test_readers_name_the_place_of_a_local_model(private_lenses: Path, tmp_path: Path) -> None:
    made = prepared(private_lenses)
    assert any(line.startswith("a place of the model") for line in made.missing)
    assert '"The man worked as a" --model DIRECTORY' in content(made, "README.md").decode()
    bundle.write(made, tmp_path / "out")
    lenses = load_lenses(tmp_path / "out")
    with pytest.raises(
        RequestError, match=r"^local:secret-gpt does not exist: .* say with --model where it is now$"
    ):
        HeadReader(lenses)
    assert HeadReader(lenses, model="demo", device="cpu").read("He took", layers=[3], heads=[4], top=1)


def test_an_altered_file_is_never_published(demo_lenses: Path, copy_of: Copy) -> None:
    lenses = copy_of(demo_lenses)
    file = lenses / "layer-00.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(DamageError, match=r"layer-00.safetensors was altered since it was written"):
        prepared(lenses)


def test_lenses_without_a_layers_file_are_never_published(demo_lenses: Path, copy_of: Copy) -> None:
    lenses = copy_of(demo_lenses)
    files = json.loads((lenses / "lens.json").read_text())["files"]
    rewrite(lenses, files={name: file for name, file in files.items() if name != "layer-03.safetensors"})
    with pytest.raises(DamageError, match=r"lens.json does not name layer-03.safetensors"):
        prepared(lenses)


def test_a_cache_of_another_plan_is_refused(demo_lenses: Path, residual_cache: Path) -> None:
    with pytest.raises(RequestError, match=r"was not fitted on .*: their plans differ"):
        prepared(demo_lenses, store=residual_cache)


def test_a_cache_that_is_not_sealed_is_refused(demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    (store / "MANIFEST.json").unlink()
    with pytest.raises(RequestError, match=r"is not sealed, so it has no MANIFEST.json"):
        prepared(demo_lenses, store=store)


def test_another_writing_of_the_plan_is_refused(demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> None:
    lenses = copy_of(demo_lenses)
    cache = json.loads((lenses / "lens.json").read_text())["cache"]
    rewrite(lenses, cache={**cache, "fingerprint": "0" * 64})
    with pytest.raises(RequestError, match=r"fingerprints differ"):
        prepared(lenses, store=demo_cache)


def test_what_can_be_no_branch_is_told_before_an_upload() -> None:
    for revision in ("", "a b", "-x"):
        with pytest.raises(
            RequestError, match=f"^'{revision}' is not the name of a branch; nothing was sent$"
        ):
            UploadSettings(revision=revision)


def test_lenses_without_figures_have_none(demo_lenses: Path, copy_of: Copy) -> None:
    lenses = copy_of(demo_lenses)
    rewrite(lenses, held_out={})
    made = prepared(lenses)
    assert not [file for file in made.files if file.path.startswith("figures/")]
    assert "held-out figures: lens.json has none" in made.missing


def test_a_figure_that_names_a_place_is_told(demo_lenses: Path, tmp_path: Path) -> None:
    figure = tmp_path / "heads.html"
    figure.write_text("<p>made in /home/ada/figures</p><a href='/x'>")
    made = prepared(demo_lenses, figures=(figure,))
    assert made.named == ("figures/heads.html: /home/ada/figures",)
    assert content(made, "figures/heads.html") == figure.read_bytes()


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("gpt2", "gpt2"),
        ("owner/name", "owner/name"),
        ("module:Class", "module:Class"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("and/or, n/a, 1/2", "and/or, n/a, 1/2"),
        ("/home/ada/gpt", "local:gpt"),
        ("~/gpt/", "local:gpt"),
        ("/data/my models/gpt", "local:gpt"),
        ("C:\\Users\\ada\\gpt", "local:gpt"),
        ("file:///home/ada/gpt", "local:gpt"),
        ("from /home/ada/gpt, then", "from local:gpt, then"),
        ("(see /scratch/ada/run)", "(see local:run)"),
        ("in ~/models/gpt", "in local:gpt"),
    ],
)
def test_what_is_a_place(text: str, becomes: str) -> None:
    assert local_paths.shorten_text(text) == becomes
