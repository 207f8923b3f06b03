"""Lenses of heads by name: each layer with its own heads, from the fit to whatever reads them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alens import FitRequest, HeadReader, fit_lenses, load_lenses, open_cache
from alens.errors import RequestError, StoppedError
from alens.fit.settings import FitSettings

from .. import documents
from ..judged import of_heads
from ..outcomes import refusal
from ..stops import Stop

SMALL: dict[str, Any] = {"steps": 12, "batch_rows": 64, "eval_rows": 500, "tolerance": 0}
OPTIONS = ("--steps", 12, "--batch-rows", 64, "--eval-rows", 500, "--tolerance", 0, "--device", "cpu")
NAMED, PAIRS = "3.1,0.4,3.4,2.0-1", [(3, 1), (3, 4), (0, 4), (2, 0), (2, 1)]


def fit(store: Path, lenses: Path, **settings: Any) -> Path:
    fit_lenses(
        FitRequest(store=store, lenses=lenses, settings=FitSettings(**{**SMALL, **settings}), device="cpu")
    )
    return lenses


@pytest.fixture(scope="module")
def named(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lenses of five heads of three layers."""
    return fit(demo_cache, tmp_path_factory.mktemp("named") / "lenses", heads=NAMED)


@pytest.fixture(scope="module")
def rectangle(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lenses of every head that one of the layers has above, in each of them."""
    return fit(demo_cache, tmp_path_factory.mktemp("all") / "lenses", layers=(3, 0, 2), heads=(1, 4, 0))


def test_exactly_the_named_heads_are_fitted_judged_saved_and_recorded(named: Path, rectangle: Path) -> None:
    record, whole = load_lenses(named).record, load_lenses(rectangle).record
    assert list(record.lenses) == PAIRS and record.layers == (3, 0, 2)
    assert record.heads == {"3": (1, 4), "0": (4,), "2": (0, 1)}
    assert {head: len(figures) for head, figures in record.held_out.items()} == {"3": 2, "0": 1, "2": 2}
    assert set(record.fit["best_step"]) == set(record.lenses.names)
    for layer, heads in record.lenses.by_layer.items():
        own, every = load_lenses(named).layer(layer), load_lenses(rectangle).layer(layer)
        assert own.maps.num_heads == len(heads) and own.W_O_HED is not None
        for place, head in enumerate(heads):
            other = whole.lenses.place(layer, head)
            torch.testing.assert_close(own.weight_HEV[place], every.weight_HEV[other])
            assert record.held_out[str(layer)][place]["kl"] == pytest.approx(
                whole.held_out[str(layer)][other]["kl"], rel=1e-5
            )


def test_their_directory_is_as_small_as_they_are(named: Path, rectangle: Path) -> None:
    sizes = [sum(path.stat().st_size for path in folder.glob("layer-*")) for folder in (named, rectangle)]
    assert sizes[0] / sizes[1] == pytest.approx(5 / 9, rel=0.01)


def test_only_layers_of_different_heads_have_the_new_formats(named: Path, rectangle: Path) -> None:
    """An older alens refuses these formats in one line, and reads a rectangle as before."""
    for folder, formats in ((named, (4, 3)), (rectangle, (3, 2))):
        bodies = [json.loads((folder / name).read_text()) for name in ("lens.json", "fit.json")]
        assert tuple(body["format"] for body in bodies) == formats
    assert bodies[0]["heads"] == bodies[1]["heads"] == [1, 4, 0]
    logged = json.loads((named / "log.jsonl").read_text().splitlines()[-1])
    assert logged["heads"] == {"3": [1, 4], "0": [4], "2": [0, 1]}


def test_a_stopped_fit_goes_on_to_the_same_lenses(demo_cache: Path, named: Path, tmp_path: Path) -> None:
    request = FitRequest(
        store=demo_cache, lenses=tmp_path, settings=FitSettings(heads=NAMED, **SMALL), device="cpu"
    )
    stop = Stop(steps=9)
    with pytest.raises(StoppedError):
        fit_lenses(request, report=stop.report, should_stop=stop)
    fit_lenses(request)
    for path in named.glob("layer-*"):
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(load_file(tmp_path / path.name)[name], tensor)


def test_the_command_line_takes_what_tables_print(
    run_alens: Any, demo_cache: Path, named: Path, tmp_path: Path
) -> None:
    outcome = run_alens("fit", demo_cache, tmp_path / "lenses", "--heads", NAMED, *OPTIONS)
    assert outcome.code == 0, outcome.stderr
    assert list(load_lenses(tmp_path / "lenses").record.lenses) == PAIRS
    outcome = run_alens("eval", named, demo_cache, "--sort", "layer")
    shown = re.findall(r"^ *(\d+\.\d+)!? ", outcome.stdout, re.MULTILINE)
    assert shown[:5] == [f"{layer}.{head}" for layer, head in PAIRS], outcome.stdout
    some = run_alens("eval", named, demo_cache, "--heads", ",".join(shown[1:4]), "--json")
    every = run_alens("eval", named, demo_cache, "--json")
    heads, all_heads = of_heads(some.stdout), of_heads(every.stdout)
    assert [(one["layer"], one["head"]) for one in heads] == PAIRS[1:4]
    assert [one["kl"] for one in heads] == pytest.approx([one["kl"] for one in all_heads[1:4]])


def test_readings_and_studies_take_heads_by_name(run_alens: Any, named: Path, tmp_path: Path) -> None:
    (reading,) = json.loads(run_alens("read", named, "She went to", "--json").stdout)
    assert [(one["layer"], one["head"]) for one in reading["heads"]] == sorted(PAIRS)
    (reading,) = json.loads(run_alens("read", named, "She", "--head", "2.1,0.4", "--json").stdout)
    assert [(one["layer"], one["head"]) for one in reading["heads"]] == [(0, 4), (2, 1)]
    page = tmp_path / "page.html"
    outcome = run_alens("read", named, "She went to", "--html", page, "--heads", "3.1,0.4", "--json")
    assert outcome.code == 0, outcome.stderr
    assert '"cells":[[0,4],[3,1]]' in page.read_text().replace(" ", "")
    terms, prompts = tmp_path / "terms.txt", tmp_path / "prompts.txt"
    terms.write_text("he\nhis\n")
    prompts.write_text("The old man opened the door, and\nJohn took his hat, and\nMy father was\n")
    located = run_alens(
        "locate", named, "--terms", terms, "--prompts", prompts, "--heads", "2.0,3.4", "--json"
    )
    assert located.code == 0, located.stderr
    assert {(one["layer"], one["head"]) for one in json.loads(located.stdout)["heads"]} == {(2, 0), (3, 4)}
    compared = run_alens("compare", named, "--clean", "He was a", "--suspect", "She was a", "--json")
    assert compared.code == 0, compared.stderr
    assert {(one["layer"], one["head"]) for one in json.loads(compared.stdout)["heads"]} == set(PAIRS)


def test_they_move_and_are_studied(run_alens: Any, named: Path, demo_cache: Path) -> None:
    moved = run_alens("transfer", named, demo_cache, "--heads", "3.4,0.4,2.0", "--rows", 300, "--json")
    assert moved.code == 0, moved.stderr
    body = json.loads(moved.stdout)
    assert [(one["layer"], one["head"]) for one in body["heads"]] == [(0, 4), (2, 0), (3, 4)]
    assert [len(row) for row in body["kl"]] == [3, 3, 3]
    basis = run_alens(
        "basis", named, demo_cache, "--heads", "3.4,0.4", "--rows", 200, "--sequences", 2,
        "--directions", 4, "--compare", "none", "--json",
    )  # fmt: skip
    assert basis.code == 0, basis.stderr
    assert [(one["layer"], one["head"]) for one in json.loads(basis.stdout)["heads"]] == [(3, 4), (0, 4)]
    added = run_alens(
        "inject",
        named,
        "The king and the",
        "--head",
        "3.4",
        "--tokens",
        "he",
        "--random",
        0,
        "--strength",
        "0,1",
    )
    assert added.code == 0, added.stderr
    gone = run_alens("inject", named, "The king", "--ablate", "zero", "--heads", "3.4,0.1", "--json")
    assert gone.code == 0, gone.stderr
    assert "3.4" in run_alens("inject", named, "The king", "--ablate", "zero", "--heads", "3.4").stdout


def test_exported_and_imported_again_they_are_the_same(run_alens: Any, named: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert run_alens("export", named, out, "--heads", "3.4,0.4", "--form", "z").code == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["version"], config["layers"], config["heads"]) == (2, [3, 0], [4])
    assert run_alens("export", named, tmp_path / "all", "--form", "z").code == 0
    config = json.loads((tmp_path / "all" / "config.json").read_text())
    assert config["version"] == 3 and config["heads"] == {"3": [1, 4], "0": [4], "2": [0, 1]}
    outcome = run_alens("import", tmp_path / "all", back, "--model", "demo")
    assert outcome.code == 0, outcome.stderr
    assert list(load_lenses(back).record.lenses) == PAIRS
    for layer in (3, 0, 2):
        torch.testing.assert_close(
            load_lenses(back).layer(layer).weight_HEV, load_lenses(named).layer(layer).weight_HEV
        )
    assert "heads 3.1, 3.4, 0.4, 2.0-1" in (tmp_path / "all" / "README.md").read_text()
    assert "heads: 3.1,3.4,0.4,2.0-1" in run_alens("info", back).stdout


def test_what_was_not_fitted_is_refused_by_name(run_alens: Any, named: Path, demo_cache: Path) -> None:
    said = refusal(run_alens("read", named, "She", "--head", "3.0"))
    assert said.endswith("has no lens for head 3.0: it has heads 3.1,3.4,0.4,2.0-1")
    said = refusal(run_alens("read", named, "She", "--head", "1"))
    assert "has no lens for head 0.1: it has heads" in said
    said = refusal(run_alens("eval", named, demo_cache, "--layers", "0", "--heads", "3.1"))
    assert said == "head 3.1 is not in layers 0: name heads of these, or leave the layers out"
    said = refusal(run_alens("fit", demo_cache, named.parent / "new", "--heads", "0,3.1"))
    assert "'0,3.1' must be either head numbers, which hold in each layer, or heads by name" in said
    assert "not in" in refusal(run_alens("fit", demo_cache, named.parent / "new", "--heads", "4.0"))
    assert "head 6 does not exist" in refusal(
        run_alens("fit", demo_cache, named.parent / "new", "--heads", "3.6")
    )


def test_a_toml_file_names_heads_as_strings(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    """TOML reads 18.10 as the number 18.1."""
    config = tmp_path / "fit.toml"
    config.write_text("heads = 3.1\n")
    said = refusal(run_alens("fit", demo_cache, tmp_path / "lenses", "--config", config))
    assert 'must be a string such as "18.6": as a number, head 18.10 would be 18.1' in said
    config.write_text('heads = ["3.1", "0.4"]\n')
    outcome = run_alens("fit", demo_cache, tmp_path / "lenses", "--config", config, *OPTIONS)
    assert outcome.code == 0, outcome.stderr
    assert list(load_lenses(tmp_path / "lenses").record.lenses) == [(3, 1), (0, 4)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": {"3": [1, 4], "0": [4]}}, "layers and heads name different layers"),
        ({"heads": {"3": [1, 1], "0": [4], "2": [0, 1]}}, "layers and heads are not named once each"),
        ({"heads": {"3": [1], "0": [4], "2": [0, 1]}}, "held_out has no figures of each head"),
        ({"heads": {"3": [-1, 4], "0": [4], "2": [0, 1]}}, "heads is (-1, 4)"),
        ({"heads": "all"}, 'heads is "all"'),
        ({"format": 5}, "has format 5; this alens reads format 2 and 3 and 4"),
    ],
)
def test_a_record_that_cannot_be_is_refused(
    named: Path, copy_of: Callable[[Path], Path], change: dict[str, Any], says: str
) -> None:
    lenses = copy_of(named)
    documents.edit(lenses / "lens.json", lambda body: body.update(change))
    with pytest.raises(Exception, match=re.escape(says)):
        load_lenses(lenses)


@pytest.mark.parametrize(("layers", "heads"), [(3, None), ("3", None), ([3], 1), (None, 3.1), (None, "she")])
def test_other_kinds_of_values_are_refused_from_python(
    model: Any, named: Path, layers: Any, heads: Any
) -> None:
    with pytest.raises(RequestError, match=r"(layers|heads) is .*: it must be"):
        load_lenses(named).chosen(layers, heads)


def test_python_takes_names_and_pairs(named: Path, demo_cache: Path) -> None:
    reader = HeadReader(load_lenses(named), device="cpu")
    for heads in ("2.1,0.4", ["2.1", "0.4"], [(2, 1), (0, 4)]):
        assert [(one.layer, one.head) for one in reader.read("She", heads=heads).heads] == [(0, 4), (2, 1)]
    with pytest.raises(RequestError, match="layers is 3: it must be a list"):
        reader.read("She", layers=3)  # type: ignore[arg-type]
    assert open_cache(demo_cache).plan.layers == (0, 1, 2, 3)


def test_layers_fitted_one_after_the_other_keep_their_heads(
    demo_cache: Path, named: Path, tmp_path: Path
) -> None:
    settings = FitSettings(heads=NAMED, **SMALL)
    fit_lenses(
        FitRequest(store=demo_cache, lenses=tmp_path, settings=settings, device="cpu", layers_at_once=1)
    )
    record = load_lenses(tmp_path).record
    assert list(record.lenses) == PAIRS
    for layer in record.layers:
        torch.testing.assert_close(
            load_lenses(tmp_path).layer(layer).weight_HEV, load_lenses(named).layer(layer).weight_HEV
        )
