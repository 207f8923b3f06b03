"""`alens heads`: its table, its document, its picture, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens import FamilySettings, score_heads

from ..outcomes import refusal

FEW = ("--sequences", "2", "--length", "8", "--tokens", "30", "--device", "cpu")
SETTINGS = FamilySettings(sequences=2, length=8, tokens=30)
FAMILIES = [
    "previous-token",
    "duplicate-token",
    "induction",
    "first-token",
    "copying",
    "suppression",
    "past-tense",
]


def test_json_is_what_the_library_finds(run_alens: Any) -> None:
    code, out, err = run_alens("heads", "demo", *FEW, "--json")
    assert code == 0, err
    families = score_heads("demo", SETTINGS, device="cpu")
    document = json.loads(out)
    assert document == json.loads(json.dumps(families.to_json()))
    assert list(document["families"]) == FAMILIES
    for scores in document["families"].values():
        assert len(scores) == 24
        assert all(one["above"] == one["score"] - one["control"] for one in scores)


def test_the_table_shows_the_first_heads_of_each_family(run_alens: Any) -> None:
    code, out, err = run_alens("heads", "demo", *FEW, "--show", "2", env={"COLUMNS": "80"})
    assert code == 0, err
    families = score_heads("demo", SETTINGS, device="cpu")
    assert max(map(len, out.splitlines())) <= 80
    for name, scores in families.families.items():
        assert name in out
        for one in scores[:2]:
            assert any(
                f"{one.layer}.{one.head} " in line and f"{one.score:.3f}" in line and f"{one.above:+.3f}" in line
                for line in out.splitlines()
            )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_drawn(run_alens: Any, tmp_path: Path, family: str) -> None:
    picture = tmp_path / "map.html"
    code, _, err = run_alens("heads", "demo", *FEW, "--heat-map", picture, "--heat-map-of", family)
    assert code == 0, err
    families = score_heads("demo", SETTINGS, device="cpu")
    page = picture.read_text()
    assert family in page
    assert all(f"{one.above:.3g}" in page for one in families.families[family] if abs(one.above) > 0.001)


def test_what_cannot_be_is_refused_before_the_model_is_loaded(run_alens: Any, tmp_path: Path) -> None:
    assert "there is no family 'names'" in refusal(
        run_alens("heads", "demo", "--heat-map", tmp_path / "x.png", "--heat-map-of", "names")
    )
    assert "a heat map is" in refusal(run_alens("heads", "demo", "--heat-map", tmp_path / "x.gif"))
    assert "does not exist" in refusal(run_alens("heads", tmp_path / "nothing"))
    assert "is not a file of pairs" in refusal(run_alens("heads", "demo", "--relations", tmp_path / "x.csv"))
    assert "length is 300" in refusal(run_alens("heads", "demo", "--length", "300", "--device", "cpu"))


def test_relations_are_families(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "sexes.tsv").write_text("# who\nhe\tshe\nhis\ther\nman\twoman\nboy\tgirl\nfather\tmother\n")
    few = (*FEW, "--relations", tmp_path / "sexes.tsv")
    families = json.loads(run_alens("heads", "demo", *few, "--json").stdout)
    assert len(families["families"]["sexes"]) == 24
    assert families["relations"]["sexes"] == {"pairs": 5, "left_out": 0}
    out = run_alens("heads", "demo", *few).stdout
    assert "5 pairs" in out and "capitals is left out: 1 of 48 pairs are single tokens" in out
    line = refusal(run_alens("heads", "demo", *few, "--heat-map", tmp_path / "x.png", "--heat-map-of", "x"))
    assert line.endswith("copying, suppression, capitals, past-tense, sexes")
