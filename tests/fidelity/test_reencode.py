"""A cache that is written in other forms is a cache like any other, and holds the values of these forms."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import CacheRequest, FitRequest, fit_lenses, open_cache, write_cache
from alens.errors import RequestError
from alens.fidelity.forms import TargetForm, ZForm
from alens.fidelity.reencode import reencode
from alens.fidelity.target_error import ExactDistributions, remade_targets, tail_uniforms
from alens.fit.settings import FitSettings
from alens.rows import moments
from alens.store.cache_reader import Cache
from alens.store.encoding import dequantise, quantise, round_bits

LAYERS = (0, 3)
ROWS = ("rows/token", "rows/position", "targets/ids", "targets/tail_ids", "targets/entropy", "targets/final")


def made(demo: Cache, root: Path, **asked: object) -> Cache:
    written = reencode(demo, root, **{"shards": (1, 4), "layers": LAYERS, **asked})
    assert written is not None
    return written


def test_rounded_z_is_read_and_everything_else_stays(demo: Cache, tmp_path: Path) -> None:
    written = made(demo, tmp_path / "new", z=ZForm("float16", 4))
    opened = open_cache(tmp_path / "new")
    assert opened.sealed and opened.shards == (0, 1)
    assert (opened.plan.settings.keep_bits, opened.plan.layers) == (4, LAYERS)
    assert opened.plan.identity == written.plan.identity != demo.plan.identity
    assert opened.plan.created["derived_from"] == demo.plan.identity
    for place, shard in enumerate((1, 4)):
        for layer in LAYERS:
            z = demo.z(layer, slice(1024 * shard, 1024 * shard + 1024))
            assert np.array_equal(opened.z(layer, slice(1024 * place, 1024 * place + 1024)), round_bits(z, 4))
        for name in ROWS:
            assert np.array_equal(opened.read_shard(name, place), demo.read_shard(name, shard)), name


def test_int8_is_read_as_int8(demo: Cache, as_int8: Cache) -> None:
    assert as_int8.spec("sites/attn.z/02").dtype == "int8"
    z = demo.z(2, slice(4096, 5120))
    assert np.array_equal(as_int8.z(2, slice(1024, 2048)), dequantise(*quantise(z)))


def test_rows_point_at_their_tokens(as_int8: Cache) -> None:
    sequence, position = (as_int8.read(f"rows/{name}", slice(None)) for name in ("sequence", "position"))
    assert as_int8.tokens.shape == (32, 64)
    assert np.array_equal(as_int8.tokens[sequence, position], as_int8.read("rows/token", slice(None)))


@pytest.mark.parametrize("z", [None, ZForm("int8", None), ZForm("float16", 3)])
def test_statistics_are_those_of_z_as_it_is_read(demo: Cache, tmp_path: Path, z: ZForm | None) -> None:
    cache = made(demo, tmp_path / "new", z=z)
    counted = cache.read("rows/position", slice(None)) > 0
    statistics = moments.of_cache(cache, LAYERS, cache.shards)
    tolerance = 1e-6 if z is None else 1e-12  # copied from stage one, or counted here in float64
    for place, layer in enumerate(LAYERS):
        z_NHE = cache.z(layer, slice(None))[counted].astype(float)
        assert statistics.mean_LHE[place] == pytest.approx(z_NHE.mean(0), abs=tolerance)
        covariance = np.cov(z_NHE[:, 5].T, bias=True)
        assert statistics.covariance_LHEE[place, 5] == pytest.approx(covariance, abs=tolerance)


def test_other_targets_are_made_from_the_exact_teacher(demo: Cache, tmp_path: Path) -> None:
    cache = made(demo, tmp_path / "new", targets=TargetForm(8, 4), exact_teacher=False)
    assert not cache.plan.settings.exact_teacher
    targets, stored = cache.targets(slice(0, 1024)), demo.targets(slice(1024, 2048))
    assert targets.ids_NK.shape == (1024, 8) and targets.tail_ids_NM.shape == (1024, 4)
    assert (targets.ids_NK == stored.ids_NK[:, :8]).mean() > 0.99
    outside = (targets.tail_ids_NM[:, :, None] != targets.ids_NK[:, None, :]).all()
    assert outside and (targets.tail_ids_NM < 4096).all()
    assert targets.entropy_N == pytest.approx(stored.entropy_N, abs=5e-3)
    sequence, position = (demo.read_shard(f"rows/{name}", 1).astype(int) for name in ("sequence", "position"))
    uniforms = tail_uniforms(demo.plan, sequence * 64 + position, 4)
    exact = ExactDistributions.of(demo, torch.device("cpu"))
    again = remade_targets(TargetForm(8, 4), demo.read_shard("targets/final", 1), exact, uniforms)
    assert again is not None and np.array_equal(targets.tail_ids_NM, again.tail_ids_NM)


def test_z_is_what_stage_one_writes_bit_for_bit(demo: Cache, tmp_path: Path) -> None:
    settings = dataclasses.replace(demo.plan.settings, keep_bits=3, layers=(2,))
    written = write_cache(
        CacheRequest(model="demo", corpus="demo", store=tmp_path / "run", settings=settings, device="cpu")
    ).cache
    cache = made(demo, tmp_path / "new", shards=(0,), layers=(2,), z=ZForm("float16", 3))
    ours, theirs = (
        {
            c.tokens[s, p].tobytes() + bytes([p]) + c.tokens[s].tobytes(): row.tobytes()
            for s, p, row in rows(c)
        }
        for c in (cache, written)
    )
    both = ours.keys() & theirs.keys()
    assert both and all(ours[key] == theirs[key] for key in both)


def rows(cache: Cache) -> list[tuple[int, int, np.ndarray]]:
    """The sequences, the positions and z of layer 2."""
    sequence, position = (cache.read(f"rows/{name}", slice(None)) for name in ("sequence", "position"))
    return list(zip(sequence, position, cache.z(2, slice(None)), strict=True))


def test_all_shards_share_the_tokens_of_the_source(demo: Cache, without_teacher: Cache) -> None:
    assert without_teacher.plan.tokens.sha256 == demo.plan.tokens.sha256
    assert without_teacher.paths.tokens.stat().st_ino == demo.paths.tokens.stat().st_ino


def test_a_derived_cache_can_be_derived_from(as_int8: Cache, tmp_path: Path) -> None:
    again = reencode(as_int8, tmp_path / "again", shards=(1,), layers=(2,))
    assert again is not None
    assert np.array_equal(again.z(2, slice(None)), as_int8.z(2, slice(1024, 2048)))
    coarser = reencode(as_int8, tmp_path / "coarser", shards=(1,), layers=(2,), z=ZForm("float16", 2))
    assert coarser is not None
    assert np.array_equal(coarser.z(2, slice(None)), round_bits(as_int8.z(2, slice(1024, 2048)), 2))


@pytest.mark.parametrize("form", [ZForm("int8", None), ZForm("float16", 3)])
def test_a_fit_takes_it(demo: Cache, tmp_path: Path, form: ZForm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)  # so that what the fit sets is undone
    made(demo, tmp_path / "new", z=form, layers=(3,))
    settings = FitSettings(heads=(1,), steps=4, batch_rows=256, eval_rows=100, teacher="exact")
    done = fit_lenses(
        FitRequest(store=tmp_path / "new", lenses=tmp_path / "lenses", settings=settings, device="cpu")
    )
    assert done.record.held_out["3"][0]["kl"] < 5


def test_other_targets_without_the_exact_teacher_are_refused(without_teacher: Cache, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no exact teacher: targets other than top 16, 16 samples"):
        reencode(without_teacher, tmp_path / "new", shards=(0,), layers=(1,), targets=TargetForm(4, 4))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("asked", [{"z": ZForm("int8", None)}, {"targets": TargetForm(4, 4)}])
def test_it_can_be_stopped(demo: Cache, tmp_path: Path, asked: dict[str, object]) -> None:
    stopped = reencode(demo, tmp_path / "new", shards=(0,), layers=(0,), should_stop=lambda: True, **asked)
    assert stopped is None and not open_cache(tmp_path / "new").shards
