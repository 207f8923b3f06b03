"""No command shows a lens that says nothing, here head 0.1, without its mark."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from alens.lens import marks
from alens.lens.directory import LensDirectory
from alens.lens.lenses import load_lenses

from ..judged import of_heads
from ..page_data import held

MARKED = (0, 1)
QUICK_BASIS = ("--directions", "4", "--rows", "64", "--sequences", "2", "--compare", "none")
TEXTS = ("He saw the dog and", "She saw the door and", "They saw the sea and", "I saw the house and")


@pytest.fixture(scope="module")
def lenses(demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`demo_lenses`, with the mark of a fit at head 0.1."""
    root = shutil.copytree(demo_lenses, tmp_path_factory.mktemp("marked") / "lenses")
    record = load_lenses(root).record
    held_out = {layer: [dict(head) for head in heads] for layer, heads in record.held_out.items()}
    held_out["0"][0]["says_nothing"] = True
    LensDirectory(root).put_record(dataclasses.replace(record, held_out=held_out, mean_output_kl=2.5))
    return root


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of prompts and one of terms."""
    folder = tmp_path_factory.mktemp("prompts")
    for name, texts in (
        ("ours", TEXTS),
        ("theirs", [t.replace("saw", "took") for t in TEXTS]),
        ("terms", ["he"]),
    ):
        (folder / f"{name}.txt").write_text("\n".join(texts))
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def commands(lenses: Path, demo_cache: Path, prompts: dict[str, Path]) -> dict[str, tuple[Any, ...]]:
    """Every command that shows heads of lenses and has `--json`."""
    few = ("--rows", "64")
    return {
        "read": ("read", lenses, "He was"),
        "eval": ("eval", lenses, demo_cache, *few),
        "locate": (
            *("locate", lenses, "--terms", prompts["terms"], "--prompts", prompts["ours"]),
            *("--control", prompts["theirs"]),
        ),
        "compare": ("compare", lenses, "--clean", TEXTS[0], "--suspect", TEXTS[1]),
        "transfer": ("transfer", lenses, demo_cache, *few, "--between", "heads"),
        "basis": ("basis", lenses, demo_cache, *QUICK_BASIS),
    }


ALL = ("read", "eval", "locate", "compare", "transfer", "basis")


@pytest.mark.parametrize("name", ALL)
def test_table_and_json_have_it(run_alens: Any, commands: dict[str, tuple[Any, ...]], name: str) -> None:
    code, out, err = run_alens(*commands[name])
    assert code == 0, err
    assert re.search(r"\b0\.1!", out) and not re.search(r"\b(0\.4|3\.1|3\.4)!", out)
    assert f"! says nothing: {marks.MEANING} (0.1)" in " ".join(out.split())
    document = run_alens(*commands[name], "--json").stdout
    body = json.loads(document)
    heads = of_heads(document) if name == "eval" else (body[0] if name == "read" else body)["heads"]
    assert {(head["layer"], head["head"]): head["says_nothing"] for head in heads} == {
        (layer, head): (layer, head) == MARKED for layer in (0, 3) for head in (1, 4)
    }


@pytest.mark.parametrize("name", ["eval", "locate", "compare", "transfer", "basis"])
def test_heat_maps_have_it(
    run_alens: Any, commands: dict[str, tuple[Any, ...]], name: str, tmp_path: Path
) -> None:
    picture = tmp_path / "map.html"
    assert run_alens(*commands[name], "--heat-map", picture).code == 0
    text = picture.read_text()
    if name == "transfer":  # of pairs of heads: the lens's own name has it
        assert text.count(">0.1!</th>") == 2 and text.count("!</th>") == 2
    else:
        assert len(re.findall(r"\d!</td>", text)) == 1
        assert f"! says nothing: {marks.MEANING}." in text


def test_of_lenses_that_all_say_something_no_command_says_it(
    run_alens: Any, demo_lenses: Path, commands: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    for name, (command, _, *given) in commands.items():
        if name in ("read", "eval"):
            assert marks.SAYS_NOTHING not in run_alens(command, demo_lenses, *given).stdout
    assert "says_nothing" not in run_alens("info", demo_lenses, "--json").stdout


def test_matrices_of_layers_name_them_below(run_alens: Any, lenses: Path, demo_cache: Path) -> None:
    out = run_alens("transfer", lenses, demo_cache, "--rows", "64").stdout
    assert f"! says nothing: {marks.MEANING} (0.1)\n" in out


def test_info_has_it_beside_the_mean_output(run_alens: Any, lenses: Path) -> None:
    out = run_alens("info", lenses).stdout
    assert "mean output: KL 2.5000 nats\n" in out
    (line,) = (line for line in out.splitlines() if line.startswith("  0.1 "))
    assert line.endswith("  says nothing") and "  mean output 2.5000  " in line
    assert (
        out.count("says nothing") == 2 and "4 heads, 1 with a lens that says nothing, the best first" in out
    )
    body = json.loads(run_alens("info", lenses, "--json").stdout)
    assert [head.get("says_nothing", False) for head in body["held_out"]] == [True, False, False, False]


def test_injecting_its_direction_says_so(run_alens: Any, lenses: Path) -> None:
    given = (
        "inject",
        lenses,
        "He was",
        "--layer",
        "0",
        "--tokens",
        "door",
        "--strength",
        "0,1",
        "--random",
        "0",
    )
    for head, says in (("1", True), ("4", False)):
        out = run_alens(*given, "--head", head).stdout
        assert ("says nothing" in out and "the lens's direction is of no use" in out) == says
        assert json.loads(run_alens(*given, "--head", head, "--json").stdout)["says_nothing"] == says
    assert "says nothing" not in run_alens(*given, "--head", "1", "--by", "unembedding").stdout


def test_the_page_has_it(run_alens: Any, lenses: Path, tmp_path: Path) -> None:
    assert run_alens("read", lenses, "He was", "--html", tmp_path / "page.html").code == 0
    body = held((tmp_path / "page.html").read_text())
    assert body["says_nothing"] == [True, False, False, False]
    assert body["nothing_means"] == f"says nothing: {marks.MEANING}"


@pytest.mark.parametrize("form", ["paper", "z"])
def test_an_export_has_it_and_brings_it_back(run_alens: Any, lenses: Path, tmp_path: Path, form: str) -> None:
    assert run_alens("export", lenses, tmp_path / "out", "--form", form).code == 0
    check_card(tmp_path / "out" / "README.md")
    assert run_alens("import", tmp_path / "out", tmp_path / "back", "--model", "demo").code == 0
    record = load_lenses(tmp_path / "back").record
    assert (record.says_nothing(*MARKED), record.says_nothing(3, 1)) == (True, False)
    assert record.mean_output_kl == 2.5


def test_what_is_published_has_it(run_alens: Any, lenses: Path, tmp_path: Path) -> None:
    assert run_alens("publish", lenses, "--repo", "me/lenses", "--out", tmp_path / "out").code == 0
    check_card(tmp_path / "out" / "README.md")
    body = json.loads((tmp_path / "out" / "figures" / "held-out.json").read_text())
    assert body["mean_output_kl"] == 2.5
    assert [head.get("says_nothing", False) for head in body["figures"]] == [True, False, False, False]
    assert load_lenses(tmp_path / "out").record.says_nothing(*MARKED)


def check_card(path: Path) -> None:
    """The head's line has the sign, a line says what it means, and the mean output stands above the table."""
    card = path.read_text()
    assert "\n| 0.1! |" in card and card.count("! |") == 1
    assert f"! says nothing: {marks.MEANING} (0.1)." in card
    assert "KL of the mean output, which looks at nothing: 2.5000 nats" in card
