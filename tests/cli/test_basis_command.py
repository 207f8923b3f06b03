"""`alens basis`: tables, JSON, pictures and files of directions, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens.studies.basis import basis_file

from ..outcomes import refusal

QUICK = (
    "--layer",
    "3",
    "--head",
    "4",
    "--directions",
    "4",
    "--rows",
    "64",
    "--sequences",
    "2",
    "--compare",
    "random",
)


def test_lenses_are_no_place_for_directions(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Any
) -> None:
    lenses = copy_of(demo_lenses)
    path = lenses / "layer-00.safetensors"
    before = path.read_bytes()
    outcome = run_alens("basis", lenses, demo_cache, "--save", path)
    assert outcome.code == 2 and "is there and holds no directions" in outcome.stderr
    assert path.read_bytes() == before


def test_the_table_shows_the_figures_of_the_json(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    given = ("basis", demo_lenses, demo_cache, *QUICK)
    picture, directions = tmp_path / "rho.html", tmp_path / "directions.safetensors"
    shown = run_alens(*given, "--heat-map", picture, "--save", directions)
    assert shown.code == 0, shown.stderr
    outcome = run_alens(*given, "--json")
    body = json.loads(outcome.stdout)
    (head,) = body["heads"]
    assert (head["layer"], head["head"]) == (3, 4) and body["positions"] == 63
    for basis in head["bases"]:
        row = next(line for line in shown.stdout.splitlines() if f" {basis['basis']} " in line)
        assert f" {basis['correlation']['rho']:.2f} " in row and f" {basis['model_whole']:.4f} " in row
    assert "few rows: 126 were measured on" in shown.stdout
    assert "Causal fidelity of 1 head<" in picture.read_text()
    read = basis_file.load_directions(directions)[3, 4]
    assert read.lens_influence_K.tolist() == pytest.approx(head["bases"][0]["lens_influence"])


def test_names_of_bases_are_not_cut(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    given = ("basis", demo_lenses, demo_cache, *QUICK[:-1], "unembedding")
    out = run_alens(*given, env={"COLUMNS": "74"}).stdout
    assert out.count("unembedding ") == 2 and "…" not in out, out


def test_no_basis_need_be_compared(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    outcome = run_alens("basis", demo_lenses, demo_cache, *QUICK[:-1], "none", "--json")
    assert [basis["basis"] for basis in json.loads(outcome.stdout)["heads"][0]["bases"]] == ["lens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "2"), "no lens for layer 2: it has layers 0, 3"),
        (("--head", "0"), "no lens for head 0: it has heads 1, 4"),
        (("--directions", "33"), "directions is 33 and top 4: z of a head has 32 directions"),
        (
            ("--directions", "3"),
            "directions is 3, and top 4 are to be ablated together: say --top 3 or fewer",
        ),
        (("--compare", "pca"), "compare is 'pca': give unembedding or principal or random"),
        (("--sequences", "16"), "has 16 held-out sequences"),
        (("--save", "/nowhere/a.safetensors"), "/nowhere does not exist"),
        (("--save", "a.pt"), "a.pt: directions are written as .safetensors"),
        (("--heat-map", "a.pdf"), "a heat map is written as .png or .html"),
        (("--device", "tpu"), "device 'tpu' is unknown"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("basis", demo_lenses, demo_cache, *arguments), 2)


def test_lenses_of_the_residual_stream_are_refused(
    run_alens: Any, residual_cache: Path, tmp_path: Path
) -> None:
    quick = ("--steps", "2", "--batch-rows", "64", "--eval-rows", "128", "--device", "cpu")
    fitted = run_alens(
        "fit",
        residual_cache,
        tmp_path / "lenses",
        "--site",
        "resid_post",
        "--lens",
        "tuned",
        "--layers",
        "1",
        *quick,
    )
    assert fitted.code == 0, fitted.stderr
    line = refusal(run_alens("basis", tmp_path / "lenses", residual_cache), 2)
    assert "read resid_post: causal bases are of attention heads" in line


def test_what_is_no_cache_or_no_lenses_is_refused(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    assert "holds no lenses" in refusal(run_alens("basis", tmp_path / "none", demo_cache), 2)
    assert str(tmp_path / "none") in refusal(run_alens("basis", demo_lenses, tmp_path / "none"), 2)
