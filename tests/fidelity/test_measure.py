"""All figures of a cache at once, and the notes where some are missing."""

import dataclasses
import json
from pathlib import Path
from unittest import mock

import pytest
import torch

from alens import open_cache
from alens.errors import RequestError, StoppedError
from alens.fidelity.forms import ZForm
from alens.fidelity.measure import FidelityRequest, measure_fidelity
from alens.fidelity.reencode import reencode
from alens.fidelity.sample import RowSample
from alens.fidelity.target_error import ExactDistributions, kl_to_exact
from alens.store.cache_reader import Cache

QUICK = FidelityRequest(rows=200, keep_bits=(3,), top_k=(4,), tail_samples=(4,), fit=False)


def test_figures_are_those_of_their_modules(demo: Cache, tmp_path: Path) -> None:
    seen = []
    request = dataclasses.replace(QUICK, work=tmp_path)
    fidelity = measure_fidelity(demo, request, report=seen.append)
    sample = RowSample(demo, 200, seed=0)
    exact = ExactDistributions.of(demo, torch.device("cpu"))
    stored = kl_to_exact([sample.targets()], sample.read("targets/final"), exact).mean()
    assert fidelity.rows == len(sample)
    assert [(t.top_k, t.tail_samples, t.stored) for t in fidelity.targets] == [(4, 4, False), (16, 16, True)]
    assert fidelity.targets[1].kl_to_exact == pytest.approx(stored)
    assert fidelity.targets[0].kl_to_exact > fidelity.targets[1].kl_to_exact
    assert [(z.name, z.stored) for z in fidelity.z] == [
        ("float16", True),
        ("keep_bits 3", False),
        ("int8", False),
    ]
    assert fidelity.z[0].error is None and fidelity.z[1].error.z.mean > fidelity.z[2].error.z.mean > 0
    assert fidelity.z[0].bytes_per_row > fidelity.z[2].bytes_per_row > fidelity.z[1].bytes_per_row
    assert fidelity.heads == [] and fidelity.reference is None and fidelity.notes == []
    figures = [p for p in seen if p.stage == "figures"]
    assert [p.done for p in figures] == list(range(len(figures))) and figures[-1].total == len(figures)
    for stage, unit, total in (
        ("kept mass", "rows", len(sample)),
        ("KL to exact", "rows", len(sample)),
        ("error of z", "layers", 4),
    ):
        watched = [p for p in seen if p.stage == stage]
        assert [p.unit for p in watched] == [unit] * len(watched)
        assert (watched[0].done, watched[-1].done, watched[-1].total) == (0, total, total)
    assert list(tmp_path.iterdir()) == []
    assert json.loads(json.dumps(fidelity.to_json()))["plan"] == demo.plan.identity


def test_a_report_is_the_same_each_time(demo: Cache) -> None:
    assert measure_fidelity(demo, QUICK) == measure_fidelity(demo, QUICK)
    other = dataclasses.replace(QUICK, seed=1)
    assert measure_fidelity(demo, QUICK).targets != measure_fidelity(demo, other).targets


def test_without_the_exact_teacher_it_says_what_that_would_add(without_teacher: Cache) -> None:
    fidelity = measure_fidelity(without_teacher, QUICK)
    assert fidelity.rounding is None and not fidelity.exact_teacher
    assert [t.kl_to_exact for t in fidelity.targets] == [None]
    assert fidelity.kept_mass[-1].k == 16
    (note,) = fidelity.notes
    assert "a cache with --exact-teacher would add" in note


def test_of_int8_it_says_that_only_coarser_forms_are_tried(as_int8: Cache) -> None:
    fidelity = measure_fidelity(as_int8, dataclasses.replace(QUICK, keep_bits=(3, 7)))
    assert [z.name for z in fidelity.z] == ["int8", "keep_bits 3"]
    assert "z is stored as int8: errors and ratios are relative to that" in fidelity.notes[0]


def test_the_result_shows_itself(demo: Cache) -> None:
    fidelity = measure_fidelity(demo, QUICK)
    assert repr(fidelity).startswith("<Fidelity: ") and "2 forms of targets and 3 of z" in repr(fidelity)
    frame = fidelity.to_frame()
    assert frame["part"].tolist() == ["targets"] * 2 + ["z"] * 3
    assert frame["bytes_per_row"].tolist() == [
        form["bytes_per_row"] for part in ("targets", "z") for form in fidelity.to_json()[part]
    ]


def test_of_one_shard_no_lens_is_fitted(demo: Cache, tmp_path: Path) -> None:
    made = reencode(demo, tmp_path / "one", shards=(2,), layers=(0,))
    assert made is not None
    fidelity = measure_fidelity(made, dataclasses.replace(QUICK, fit=True, probe_heads=1))
    assert fidelity.reference is None
    assert "that needs two committed shards" in fidelity.notes[0] and str(made.root) in fidelity.notes[0]


def test_fits_stand_beside_their_forms(demo: Cache, tmp_path: Path) -> None:
    request = FidelityRequest(
        rows=100,
        keep_bits=(3,),
        top_k=(16,),
        tail_samples=(16,),
        probe_heads=1,
        probe_rows=2000,
        work=tmp_path,
    )
    fidelity = measure_fidelity(demo, request)
    assert fidelity.heads == ["2.3"]
    assert (fidelity.train_rows, fidelity.held_out_rows) == (2 * 16 * 63, 16 * 63)
    assert fidelity.reference is not None and fidelity.reference.ratio.mean == 1
    assert fidelity.z[0].fit == fidelity.reference
    assert [z.fit and z.fit.name for z in fidelity.z] == ["reference", "keep_bits 3", "int8"]
    assert fidelity.targets[0].fit is not None and fidelity.targets[0].fit.kl["2.3"] > 0
    assert fidelity.other_order is not None and fidelity.other_order != fidelity.reference
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop_at", [1, 3, 5, 8, 20])
def test_a_stop_is_said_and_leaves_nothing(demo: Cache, tmp_path: Path, stop_at: int) -> None:
    asked = iter(range(1, 10**6))
    request = dataclasses.replace(QUICK, work=tmp_path, fit=True, probe_heads=1)
    with pytest.raises(StoppedError, match=r"stopped; nothing of an unfinished report on .* is kept"):
        measure_fidelity(demo, request, should_stop=lambda: next(asked) >= stop_at)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(demo: Cache, tmp_path: Path) -> None:
    with (
        mock.patch("alens.fidelity.measure.written_z_bytes", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        measure_fidelity(demo, dataclasses.replace(QUICK, work=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_no_fit_takes_is_refused(demo: Cache) -> None:
    with pytest.raises(RequestError, match="seed is 9223372036854775807: it must be in"):
        measure_fidelity(demo, dataclasses.replace(QUICK, seed=2**63 - 1))


@pytest.mark.parametrize("name", ["rows", "probe_heads", "probe_rows"])
def test_numbers_that_cannot_be_are_refused(demo: Cache, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} is 0: it must be at least 1"):
        measure_fidelity(demo, dataclasses.replace(QUICK, **{name: 0}))


def test_the_cache_is_only_read(demo: Cache, copy_of: object) -> None:
    store = copy_of(demo.root)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    measure_fidelity(open_cache(store), QUICK)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_a_rounded_cache_is_compared_with_itself(demo: Cache, tmp_path: Path) -> None:
    made = reencode(demo, tmp_path / "rounded", shards=(0, 1), layers=(1,), z=ZForm("float16", 6))
    assert made is not None
    fidelity = measure_fidelity(made, dataclasses.replace(QUICK, keep_bits=(7, 6, 4)))
    assert [z.name for z in fidelity.z] == ["keep_bits 6", "keep_bits 4", "int8"]
    assert fidelity.notes and "z is stored as keep_bits 6" in fidelity.notes[0]
