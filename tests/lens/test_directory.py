"""The lens directory: one class knows where every file is, and `lens.json` comes last."""

import ast
import json
from pathlib import Path

import pytest
import torch

import alens
from alens.errors import RunError
from alens.heads import Heads
from alens.lens.directory import LensDirectory, layer_file
from alens.lens.lenses import load_lenses
from alens.lens.maps import AffineMaps, LayerLenses, TranslatedMaps
from alens.store import durable

PACKAGE = Path(alens.__file__).parent
NAMES = {path.name for path in vars(LensDirectory(Path("root"))).values()} - {"root"}
LOWER = PACKAGE / "store"
"""The room that holds the claim, and the two names by which a cache is told from lenses."""


def strings(module: Path) -> set[str]:
    """The strings of a module without its docstrings; each part of an f-string counts."""
    tree = ast.parse(module.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_other_module_spells_the_name_of_a_file(name: str) -> None:
    spell = {module for module in PACKAGE.rglob("*.py") if name in strings(module)}
    homes = {PACKAGE / "lens" / "directory.py", LOWER / "paths.py", LOWER / "one_writer.py"}
    assert spell <= homes and len(spell) == 1


def test_no_other_module_spells_the_name_of_the_file_of_a_layer() -> None:
    spell = {module for module in PACKAGE.rglob("*.py") if "layer-" in strings(module)}
    assert spell == {PACKAGE / "lens" / "directory.py"}


def affine(value: float) -> LayerLenses:
    maps = AffineMaps(weight_HEV=torch.full((2, 3, 5), value), bias_HV=torch.zeros(2, 5))
    return LayerLenses(maps=maps, W_O_HED=torch.ones(2, 3, 4))


def test_names_and_hashes_of_what_was_put_are_given_for_the_record(tmp_path: Path) -> None:
    layers = [(3, affine(1.0)), (11, affine(2.0))]
    files = LensDirectory(tmp_path).put_lenses(Heads.grid((3, 11), (1, 4)), layers, torch.zeros(5))
    assert sorted(files) == ["layer-03.safetensors", "layer-11.safetensors", "output.safetensors"]
    for name, recorded in files.items():
        assert recorded["bytes"] == (tmp_path / name).stat().st_size
        assert recorded["sha256"] == durable.sha256_of(tmp_path / name)


def test_maps_that_end_in_the_unembedding_share_one(tmp_path: Path) -> None:
    vectors = {name: torch.zeros(2, 4) for name in ("shift_HD", "gain_HD", "offset_HD")}
    maps = TranslatedMaps(
        translator_HED=torch.ones(2, 3, 4), W_U_DV=torch.ones(4, 5), b_U_V=torch.zeros(5), **vectors
    )
    lenses = LayerLenses(maps=maps, W_O_HED=None)
    files = LensDirectory(tmp_path).put_lenses(Heads.grid((0, 1), (0, 1)), [(0, lenses), (1, lenses)], None)
    assert sorted(files) == ["layer-00.safetensors", "layer-01.safetensors", "unembedding.safetensors"]


def test_a_layer_that_fails_leaves_no_lenses(tmp_path: Path) -> None:
    directory = LensDirectory(tmp_path)
    with pytest.raises(RunError, match=r"weight for .*layer-01\.safetensors has numbers that are not finite"):
        directory.put_lenses(Heads.grid((0, 1), (0, 1)), [(0, affine(1.0)), (1, affine(float("nan")))], None)
    assert [path.name for path in tmp_path.iterdir()] == ["layer-00.safetensors"]
    assert not directory.holds_lenses


def test_a_directory_holds_lenses_once_its_record_is_there(demo_lenses: Path, tmp_path: Path) -> None:
    directory = LensDirectory(tmp_path)
    assert not directory.holds_lenses and not directory.holds_fit
    directory.put_record(load_lenses(demo_lenses).record)
    assert directory.holds_lenses and json.loads(directory.lens_json.read_text())["layers"]
    assert directory.layer(7) == tmp_path / layer_file(7) == tmp_path / "layer-07.safetensors"
