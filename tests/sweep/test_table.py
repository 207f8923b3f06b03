import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from alens.errors import DamageError, RequestError
from alens.fit.settings import FitSettings
from alens.statistics.bootstrap import interval, resampled_means
from alens.store import document, durable
from alens.sweep import result as results
from alens.sweep import sweep_json, table, table_files

HEADS = ((0, 1), (3, 1))
ROWS_G = np.array([5.0, 7.0, 6.0, 7.0])


def result(shift: float, rows_G: np.ndarray = ROWS_G) -> results.VariantResult:
    noise_GH = np.random.default_rng(1).normal(1.0, 0.2, (len(rows_G), 2))
    return results.VariantResult(
        steps=9,
        rows_seen=90,
        seconds=1.5,
        converged=1,
        heads=HEADS,
        cross_entropy=(4.0, 5.0),
        top1_agreement=(0.25, 0.5),
        mean_output_kl=2.75,
        kl_GH=(noise_GH + np.array([shift, 2 * shift])) * rows_G[:, None],
        rows_G=rows_G,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A sweep of four: a and b are finished, c has failed, d is missing."""
    asked = {name: FitSettings(seed=place, layers=(0, 3)).to_json() for place, name in enumerate("abcd")}
    durable.put(
        tmp_path / sweep_json.NAME,
        document.encode({"format": sweep_json.FORMAT, "cache_plan": "x", "base": {}, "variants": asked}),
    )
    for name, outcome in (
        ("a", result(0.5)),
        ("b", result(0.3)),
        ("c", results.VariantResult(failed="boom")),
    ):
        (tmp_path / name).mkdir()
        results.put_result(tmp_path / name, outcome)
    return tmp_path


def test_figures_intervals_and_paired_differences(out: Path) -> None:
    shown = table.build(out)
    a, b, c = shown.rows
    assert (shown.against, shown.missing, shown.sequences, shown.held_out_rows) == ("b", ("d",), 4, 25)
    means_RH = resampled_means(result(0.5).kl_GH, ROWS_G, seed=0)
    assert a.kl == pytest.approx(result(0.5).kl_GH.sum() / 25 / 2)
    assert a.interval == pytest.approx(interval(means_RH.mean(axis=1), groups=len(ROWS_G)))
    assert a.heads[1].interval == pytest.approx(interval(means_RH[:, 1], groups=len(ROWS_G)))
    # b is a less a constant, so the paired difference is known exactly, however wide the intervals are
    assert a.difference == pytest.approx(0.3)
    assert a.difference_interval == pytest.approx((0.3, 0.3))
    assert b.difference is None and b.interval is not None and b.interval[1] - b.interval[0] > 0.05
    assert a.worst is not None and (a.worst.layer, a.worst.head) == (3, 1)
    assert (c.failed, c.kl, c.interval) == ("boom", None, None)
    assert [row.settings for row in shown.rows] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


def test_another_variant_can_be_the_one_to_compare_with(out: Path) -> None:
    shown = table.build(out, against="a")
    assert shown.rows[0].difference is None and shown.rows[1].difference == pytest.approx(-0.3)
    for name in ("c", "d", "e"):
        with pytest.raises(RequestError, match=f"no finished variant {name} to compare with: it has a, b"):
            table.build(out, against=name)


def test_the_files_hold_the_same_numbers(out: Path) -> None:
    shown = table.build(out)
    table_files.put(out, shown)
    body = json.loads((out / "table.json").read_text())
    assert body["rows"][0]["kl"] == shown.rows[0].kl and body["missing"] == ["d"]
    with (out / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["variant"] for line in lines] == ["a", "b", "c"]
    assert [line["mean_output_kl"] for line in lines] == ["2.75", "2.75", ""]
    assert float(lines[0]["difference"]) == shown.rows[0].difference and lines[2]["failed"] == "boom"
    with (out / "heads.csv").open() as file:
        heads = list(csv.DictReader(file))
    assert [(h["variant"], h["layer"], h["head"]) for h in heads] == [
        (name, layer, "1") for name in "ab" for layer in "03"
    ]
    assert {head["mean_output_kl"] for head in heads} == {"2.75"}
    assert float(heads[3]["kl"]) == shown.rows[1].heads[1].kl
    page = (out / "table.md").read_text()
    worst = [row.worst.kl for row in shown.rows[:2] if row.worst is not None]
    assert worst[0] < 2.75 and f"| 3.1: {worst[0]:.4f} |" in page
    assert (
        page.startswith("| variant | seed | KL | 95 % interval | mean output |")
        and "c has failed: boom" in page
    )
    assert "1 of 4 variants are not finished: d" in page


def test_a_worst_head_above_the_mean_output_is_marked(out: Path) -> None:
    results.put_result(out / "a", dataclasses.replace(result(0.5), mean_output_kl=1.5))
    table_files.put(out, table.build(out))
    page = (out / "table.md").read_text()
    assert "| 3.1: >" in page.splitlines()[2] and ">" not in page.splitlines()[3]


def test_one_sequence_gives_no_interval(out: Path) -> None:
    for name in "ab":
        results.put_result(out / name, result(0.1 if name == "a" else 0.2, ROWS_G[:1]))
    a, b, _ = table.build(out).rows
    assert a.interval is None and b.difference_interval is None and b.difference == pytest.approx(0.15)


def test_variants_that_were_judged_on_other_rows_are_not_compared(out: Path) -> None:
    results.put_result(out / "a", result(0.5, ROWS_G + 1))
    with pytest.raises(DamageError, match="judged on other held-out rows"):
        table.build(out)


def test_nothing_finished_is_an_empty_table(out: Path) -> None:
    for name in "abc":
        (out / name / "result.json").unlink()
    shown = table.build(out)
    table_files.put(out, shown)
    assert (shown.rows, shown.against, len(shown.missing)) == ((), None, 4)
    assert "4 of 4 variants are not finished" in (out / "table.md").read_text()
