"""The Logit Lens of a model with an RMS norm, without the model at hand: the cache keeps the norm."""

import copy
import dataclasses
import os
from pathlib import Path
from unittest import mock

import pytest

from alens import CacheRequest, EvaluateSettings, FitRequest, evaluate, fit_lenses, load_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings

from ..model.families import GATED, save

SETTINGS = CacheSettings(
    seq_len=16, rows_per_shard=64, max_rows=256, batch_size=2, top_k=8, tail_samples=4,
    exact_teacher=True, sites=("resid_post",),
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    root = tmp_path_factory.mktemp("llama")
    model = save(root / "model", "LlamaConfig", GATED)
    request = CacheRequest(
        model=str(model), corpus="demo", store=root / "cache", settings=SETTINGS, device="cpu"
    )
    return write_cache(request).cache


def fitted(cache: Cache, root: Path, **settings: object) -> Path:
    asked = FitSettings(steps=1, batch_rows=64, eval_rows=60, **settings)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=cache.root, lenses=root, settings=asked, device="cpu"))
    return root


def test_after_the_last_layer_it_is_the_model_itself(cache: Cache, tmp_path: Path) -> None:
    lenses = load_lenses(fitted(cache, tmp_path / "heads", heads=(0,)))
    older = copy.copy(cache)
    older.plan = dataclasses.replace(cache.plan, model=dataclasses.replace(cache.plan.model, final_norm=None))
    bare, normed = (
        evaluate(lenses, one, settings=EvaluateSettings(resamples=2)).logit_lens[1].kl
        for one in (older, cache)
    )
    assert normed == pytest.approx(0, abs=1e-3) and bare > 0.02


def test_the_tuned_lens_starts_there_and_keeps_the_norm(cache: Cache, tmp_path: Path) -> None:
    lenses = load_lenses(
        fitted(cache, tmp_path / "tuned", site="resid_post", lens="tuned", lr=1e-9, layers=(1,))
    )
    assert evaluate(lenses, cache, settings=EvaluateSettings(resamples=2)).lens[1][0].kl == pytest.approx(
        0, abs=1e-2
    )
    norm = lenses.record.model.final_norm
    assert norm is not None and norm.kind == "rms"
