"""Baselines of the layer: the Logit Lens and the Tuned Lens, on a cache with the residual stream."""

import copy
import dataclasses
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from alens import EvaluateSettings, FitRequest, evaluate, fit_lenses, load_lenses, open_cache
from alens.errors import RequestError
from alens.evaluation.panel import log_mean_output
from alens.evaluation.result import Evaluation
from alens.fit.settings import FitSettings
from alens.lens.maps import TranslatedMaps
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import Cache

ROWS = 496
"""The rows of one shard: 16 sequences of 31 rows."""


def fitted(store: Path, lenses: Path, **settings: object) -> Path:
    asked = FitSettings(steps=4, batch_rows=128, **{"eval_rows": ROWS, **settings})
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=store, lenses=lenses, settings=asked, device="cpu"))
    return lenses


@pytest.fixture(scope="module")
def of_heads(residual_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(residual_cache, tmp_path_factory.mktemp("heads") / "lenses", heads=(0, 2))


@pytest.fixture(scope="module")
def tuned(residual_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(
        residual_cache, tmp_path_factory.mktemp("tuned") / "lenses", site="resid_post", lens="tuned"
    )


def norm(cache: Cache, stream_BD: torch.Tensor) -> torch.Tensor:
    """The last norm of the model."""
    gain_D, offset_D = (torch.from_numpy(cache.weights(f"norm_{name}")) for name in ("gain", "offset"))
    return torch.nn.functional.layer_norm(stream_BD, stream_BD.shape[-1:]) * gain_D + offset_D


@pytest.fixture(scope="module")
def evaluation(residual_cache: Path, of_heads: Path, tuned: Path) -> Evaluation:
    return evaluate(load_lenses(of_heads), open_cache(residual_cache), tuned_lens=load_lenses(tuned))


def test_there_is_one_of_each_a_layer(evaluation: Evaluation) -> None:
    assert list(evaluation.logit_lens) == list(evaluation.tuned_lens) == [1, 2]
    assert list(evaluation.comparisons) == [
        *("mean-output", "unembedding", "scaled-write", "tuned-composition", "logit-lens", "tuned-lens")
    ]
    assert all(len(heads) == 2 for by_layer in evaluation.comparisons.values() for heads in by_layer.values())


def test_the_logit_lens_norms_the_stream_as_it_was_told(evaluation: Evaluation, residual_cache: Path) -> None:
    cache = open_cache(residual_cache)
    keep = np.flatnonzero(cache.read_shard("rows/position", 3) > 0) + 3 * 512
    W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).double() for name in ("W_U", "b_U"))
    final_ND = torch.from_numpy(cache.read("targets/final", keep)).double()
    model_NV = (final_ND @ W_U_DV + b_U_V).log_softmax(-1)
    for layer in (1, 2):
        stream_ND = torch.from_numpy(cache.site("resid_post", layer, keep)).double()
        lens_NV = (norm(cache, stream_ND) @ W_U_DV + b_U_V).log_softmax(-1)
        expected = float((model_NV.exp() * (model_NV - lens_NV)).sum(1).mean())
        assert evaluation.logit_lens[layer].kl == pytest.approx(expected, rel=1e-3)
        assert evaluation.comparisons["logit-lens"][layer][1].kl.difference == pytest.approx(
            evaluation.lens[layer][1].kl - expected, abs=1e-2
        )
    assert evaluation.norm_is_the_models


def test_the_tuned_lens_is_judged_as_it_is_alone(
    evaluation: Evaluation, residual_cache: Path, tuned: Path
) -> None:
    alone = evaluate(load_lenses(tuned), open_cache(residual_cache))
    for layer in (1, 2):
        assert evaluation.tuned_lens[layer].kl == pytest.approx(alone.lens[layer][0].kl, rel=1e-5)
        assert evaluation.logit_lens[layer].kl == pytest.approx(alone.unembedding[layer][0].kl, rel=1e-5)
    assert (
        alone.logit_lens == alone.tuned_lens == {}
    )  # beside lenses of the stream, `unembedding` is the Logit Lens


def without_norm(cache: Cache) -> Cache:
    """The cache as an alens wrote it that did not keep the last norm."""
    older = copy.copy(cache)
    model = dataclasses.replace(cache.plan.model, final_norm=None, head_write=None)
    older.plan = dataclasses.replace(cache.plan, model=model)
    return older


def test_a_cache_of_before_the_norm_was_kept_is_bare_and_says_so(
    residual_cache: Path, of_heads: Path, evaluation: Evaluation, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(residual_cache)
    bare = evaluate(load_lenses(of_heads), without_norm(cache), settings=EvaluateSettings(resamples=2))
    assert not bare.norm_is_the_models and bare.tuned_lens == {}
    assert bare.logit_lens[2].kl != pytest.approx(evaluation.logit_lens[2].kl, rel=1e-2)
    assert bare.unembedding[2][0].kl != pytest.approx(evaluation.unembedding[2][0].kl, rel=1e-2)
    assert [line for line in caplog.messages if "was written before alens kept the last norm" in line]
    told = evaluate(
        load_lenses(of_heads),
        without_norm(cache),
        final_norm=FinalNorm.of_cache(cache),
        settings=EvaluateSettings(resamples=2),
    )
    assert told.norm_is_the_models
    assert told.logit_lens[2].kl == pytest.approx(evaluation.logit_lens[2].kl, rel=1e-5)


def test_heads_that_write_something_else_have_no_unembedding(
    residual_cache: Path, of_heads: Path, evaluation: Evaluation, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache(residual_cache)
    model = dataclasses.replace(cache.plan.model, head_write="other")
    cache.plan = dataclasses.replace(cache.plan, model=model)
    without = evaluate(load_lenses(of_heads), cache, settings=EvaluateSettings(resamples=2))
    assert without.unembedding == {} and "unembedding" not in without.comparisons
    assert without.lens[2][0].kl == pytest.approx(evaluation.lens[2][0].kl, rel=1e-6)
    readings = {one["reading"] for one in without.to_json()["readings"]}
    assert not {"unembedding", "scaled-write", "tuned-composition"} & readings
    assert any(line.endswith("the unembedding of heads is left out") for line in caplog.messages)


def test_lenses_of_heads_are_no_tuned_lens(residual_cache: Path, of_heads: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no Tuned Lens: its lenses read attn.z and are affine"):
        evaluate(load_lenses(of_heads), open_cache(residual_cache), tuned_lens=load_lenses(of_heads))


def test_rows_that_a_tuned_lens_saw_are_left_out(residual_cache: Path, tuned: Path, tmp_path: Path) -> None:
    more = fitted(residual_cache, tmp_path / "lenses", heads=(0,), eval_rows=2 * ROWS)
    cache = open_cache(residual_cache)
    evaluation = evaluate(
        load_lenses(more), cache, tuned_lens=load_lenses(tuned), settings=EvaluateSettings(resamples=50)
    )
    assert (evaluation.shards, evaluation.sequences_left_out) == (
        (3,),
        cache.plan.settings.sequences_per_shard,
    )
    assert evaluate(load_lenses(more), cache, settings=EvaluateSettings(resamples=50)).shards == (2, 3)


def test_a_tuned_lens_that_saw_all_judged_rows_is_refused(
    residual_cache: Path, tuned: Path, tmp_path: Path
) -> None:
    own = load_lenses(fitted(residual_cache, tmp_path / "lenses", heads=(0,), eval_rows=ROWS))
    seen = load_lenses(tuned)
    seen.record = dataclasses.replace(seen.record, cache={**seen.record.cache, "train_shards": [0, 1, 2, 3]})
    with pytest.raises(RequestError, match="was trained on all that could be judged on"):
        evaluate(own, open_cache(residual_cache), tuned_lens=seen)


def test_a_tuned_lens_must_have_the_layers(residual_cache: Path, of_heads: Path, tmp_path: Path) -> None:
    one = fitted(residual_cache, tmp_path / "lenses", site="resid_post", lens="tuned", layers=(2,))
    with pytest.raises(RequestError, match="has no lens for layer 1: it has layers 2"):
        evaluate(load_lenses(of_heads), open_cache(residual_cache), tuned_lens=load_lenses(one))


def test_a_cache_without_the_stream_has_no_tuned_lens(
    demo_cache: Path, demo_lenses: Path, tuned: Path
) -> None:
    with pytest.raises(RequestError, match="resid_post"):
        evaluate(load_lenses(demo_lenses), open_cache(demo_cache), tuned_lens=load_lenses(tuned))


def test_the_mean_output_is_of_the_whole_cache_where_lenses_do_not_say_it(
    demo_lenses: Path, demo_cache: Path
) -> None:
    lenses, cache = load_lenses(demo_lenses), open_cache(demo_cache)
    said = lenses.log_mean_output()
    assert said is not None and torch.equal(log_mean_output(lenses, cache), said)
    files = {name: sha256 for name, sha256 in lenses.record.files.items() if name.startswith("layer-")}
    lenses.record = dataclasses.replace(lenses.record, files=files)
    assert lenses.log_mean_output() is None
    mean_V = cache.read("stats/output", slice(0, 6)).sum(0)
    expected_V = np.log(mean_V / mean_V.sum())
    np.testing.assert_allclose(log_mean_output(lenses, cache).numpy(), expected_V, atol=1e-4)


def test_baselines_are_regressed_on_rows_that_are_not_judged(
    residual_cache: Path, of_heads: Path, tmp_path: Path
) -> None:
    """The regression is that of `--lens regression`, but for how its bias is kept; more directions know more."""
    cache, lenses = open_cache(residual_cache), load_lenses(of_heads)
    directory, settings = tmp_path / "lenses", FitSettings(lens="regression", heads=(0, 2), eval_rows=ROWS)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=residual_cache, lenses=directory, settings=settings, device="cpu"))
    asked = EvaluateSettings(baselines=("regression", "random"), resamples=2)
    evaluation = evaluate(lenses, cache, settings=asked)
    also = evaluate(
        lenses,
        cache,
        settings=EvaluateSettings(baselines=("unembedding",), resamples=2),
        also=[load_lenses(directory)],
    )
    for layer in (1, 2):
        for made, read in zip(
            evaluation.of_heads["regression"][layer], also.of_heads["regression"][layer], strict=True
        ):
            assert made.kl == pytest.approx(read.kl, abs=0.02)
        assert evaluation.of_layers["random"][layer].kl < evaluation.mean_output.kl
    with pytest.raises(RequestError, match="would be a second reading regression"):
        evaluate(lenses, cache, also=[load_lenses(directory)] * 2)


def test_the_tuned_composition_is_the_tuned_lens_of_a_heads_part(
    evaluation: Evaluation, residual_cache: Path, of_heads: Path, tuned: Path
) -> None:
    cache, own = open_cache(residual_cache), load_lenses(of_heads).layer(2)
    maps = load_lenses(tuned).layer(2).maps
    assert isinstance(maps, TranslatedMaps) and own.W_O_HED is not None
    keep_N = np.flatnonzero(cache.read_shard("rows/position", 3) > 0) + 3 * 512
    part_ND = torch.from_numpy(cache.z(2, keep_N)[:, 2]).float() @ own.W_O_HED[1]
    moved_ND = part_ND @ maps.translator_HED[0] + maps.shift_HD[0]
    moved_ND = (moved_ND - moved_ND.mean(1, keepdim=True)) * maps.gain_HD[0]
    moved_ND = moved_ND / torch.from_numpy(cache.read("targets/final_scale", keep_N))[:, None]
    reading_NV = ((moved_ND + maps.offset_HD[0]) @ maps.W_U_DV + maps.b_U_V).log_softmax(-1)
    final_ND = torch.from_numpy(cache.read("targets/final", keep_N)).float()
    model_NV = (final_ND @ maps.W_U_DV + maps.b_U_V).log_softmax(-1)
    expected = float((model_NV.exp() * (model_NV - reading_NV)).sum(1).mean())
    assert evaluation.of_heads["tuned-composition"][2][1].kl == pytest.approx(expected, rel=1e-3)
