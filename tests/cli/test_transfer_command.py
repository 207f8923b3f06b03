"""`alens transfer`: its matrix, its pictures, and how it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alens import load_lenses, open_cache
from alens.studies.transfer.settings import TransferSettings
from alens.studies.transfer.transfer import transfer

from ..outcomes import refusal

FEW = ("--rows", "64", "--device", "cpu")


def test_json_is_what_the_library_finds(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    code, out, err = run_alens("transfer", demo_lenses, demo_cache, *FEW, "--match", "mean", "--json")
    assert code == 0, err
    matrix = transfer(
        load_lenses(demo_lenses), open_cache(demo_cache), settings=TransferSettings(rows=64, match="mean")
    )
    assert json.loads(out) == json.loads(json.dumps(matrix.to_json()))


def test_the_text_has_a_cell_for_each_pair_of_layers(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "map.html"
    code, out, _ = run_alens("transfer", demo_lenses, demo_cache, *FEW, "--heat-map", picture)
    assert code == 0
    matrix = transfer(load_lenses(demo_lenses), open_cache(demo_cache), settings=TransferSettings(rows=64))
    assert "64 held-out rows of 16 sequences, exact teacher, attn.z; matched: scale" in out
    for pair in matrix.by_layer:
        assert f"{pair.kl:+.3f}" in out and f"{pair.best_kl:+.3f}" in out
        assert f"{pair.kl:.3g}" in picture.read_text()
    assert f"mean output (no lens): KL {matrix.mean_output.kl:.3f}" in out


def test_every_pair_of_heads_can_be_drawn(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "map.png"
    code, out, _ = run_alens(
        *("transfer", demo_lenses, demo_cache, *FEW, "--between", "heads", "--figure", "ce"),
        *("--heat-map", picture),
    )
    assert code == 0 and picture.read_bytes().startswith(b"\x89PNG")
    matrix = transfer(load_lenses(demo_lenses), open_cache(demo_cache), settings=TransferSettings(rows=64))
    for (layer, head), own in zip(matrix.heads, matrix.native, strict=True):
        (line,) = [line for line in out.splitlines() if line.strip().startswith(f"{layer}.{head} ")]
        assert f"{own.cross_entropy:.3f}" in line and "of 3" in line


def test_a_lens_on_its_own_head_is_0(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "map.html"
    given = ("--layers", "0,3", "--heads", "1", "--heat-map", picture)
    for more in ((), ("--between", "heads")):
        assert run_alens("transfer", demo_lenses, demo_cache, *FEW, *given, *more).code == 0
        cells = re.findall(r">([^<]*)</td>", picture.read_text())
        assert len(cells) == 4 and [cells[0].rstrip("*"), cells[3].rstrip("*")] == ["0", "0"]


def test_a_copy_is_read_in_every_way(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, rotated_cache: Path, tmp_path: Path
) -> None:
    picture, to = tmp_path / "map.html", ("--to", rotated_cache)
    code, out, err = run_alens(
        *("transfer", demo_lenses, demo_cache, *to, "--by", "output", *FEW, "--heat-map", picture)
    )
    assert code == 0, err
    assert "64 rows of 16 sequences on the copy, the same rows" in out
    assert "each lens at home and on the copy (by output, matched: scale)" in out
    assert all(out.count(f"\n{by} ") >= 3 for by in ("output", "value"))
    assert "at home, nats" in picture.read_text()
    body = json.loads(run_alens("transfer", demo_lenses, demo_cache, *to, *FEW, "--json").stdout)
    assert [tuple(head) for head in body["heads"]] == [(0, 1), (0, 4), (3, 1), (3, 4)]
    assert body["bootstrap"] == {"level": 0.95, "resamples": 2000, "seed": 0}
    less = next(way for way in body["ways"] if (way["by"], way["match"]) == ("value", "none"))["less_home"]
    for figure, field in (("kl", "kl"), ("ce", "cross_entropy")):
        _, out, _ = run_alens("transfer", demo_lenses, demo_cache, *to, *FEW, "--figure", figure)
        low, high = less[f"{field}_interval"]
        assert f"{less[field]:+.3f}" in out and f"{low:+.3f} to {high:+.3f}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--native", "x"), "--native names lenses of a copy: give the copy's cache with --to"),
        (("--by", "value"), "--by says how a copy's heads are read: give the copy's cache with --to"),
        (("--to", "x", "--between", "heads"), "--between heads is for one model"),
        (("--to", "/nowhere/cache"), "/nowhere/cache"),
        (("--layers", "2"), "no lens for layer 2: it has layers 0, 3"),
        (("--heads", "0"), "no lens for head 0: it has heads 1, 4"),
        (("--rows", "0"), "0 is not in the range x>=1"),
        (("--match", "all"), "'all' is not one of 'none', 'mean', 'scale'"),
        (("--heat-map", "map.pdf"), "a heat map is written as .png or .html"),
        (("--heat-map", "/nowhere/map.png"), "/nowhere does not exist"),
        (("--device", "tpu"), "device 'tpu' is unknown"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("transfer", demo_lenses, demo_cache, *arguments))


def test_a_cache_of_another_model_asks_for_to(run_alens: Any, demo_lenses: Path, rotated_cache: Path) -> None:
    line = refusal(run_alens("transfer", demo_lenses, rotated_cache))
    assert "has other weights" in line
