"""A model that caps its logits, through the whole path, against plain transformers."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from alens import CacheRequest, EvaluateSettings, FitRequest, evaluate, fit_lenses, load_lenses, write_cache
from alens.cache.recompute import recompute
from alens.cache.request import RecomputeRequest
from alens.fidelity.target_error import ExactDistributions
from alens.fit.settings import FitSettings
from alens.model.edited_runs import EditedRuns
from alens.reading.head_reader import HeadReader
from alens.reading.page_reader import read_page
from alens.statistics.divergences import kl_of_log_probs
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings
from alens.studies.basis.model_influence import _kl
from alens.studies.injection.perplexity import Windows, loss_of

from ..model.families import FACTORS, save

SETTINGS = CacheSettings(
    seq_len=16, rows_per_shard=64, max_rows=320, batch_size=2, top_k=8, tail_samples=4,
    exact_teacher=True, sites=("resid_post",),
)  # fmt: skip
FAMILY = FACTORS["gemma2"]
PROMPT = "She looked at the sea"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("capped") / "model", FAMILY.config, FAMILY.options)


@pytest.fixture(scope="module")
def cache(folder: Path) -> Cache:
    store = folder.parent / "cache"
    return write_cache(
        CacheRequest(model=str(folder), corpus="demo", store=store, settings=SETTINGS, device="cpu")
    ).cache


@pytest.fixture(scope="module")
def lenses(cache: Cache) -> Path:
    root = cache.root.parent / "lenses"
    settings = FitSettings(layers=(1,), steps=2, batch_rows=64, eval_rows=60, teacher="exact")
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=cache.root, lenses=root, settings=settings, device="cpu"))
    return root


@pytest.fixture(scope="module")
def reader(lenses: Path) -> HeadReader:
    return HeadReader(load_lenses(lenses), device="cpu")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    """transformers' model: (B, T) tokens -> (B, T, V) log-probabilities."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)

    def log_probs(tokens_BT: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits_BTV: torch.Tensor = model.eval()(tokens_BT).logits
        return logits_BTV.log_softmax(-1)

    return log_probs


def test_the_cache_agrees_with_the_model(cache: Cache) -> None:
    assert cache.plan.model.logit_cap == FAMILY.cap
    recomputed = recompute(cache, RecomputeRequest(rows=64, device="cpu"))
    assert recomputed.agrees and recomputed.shards == 1


def test_a_cache_of_moments_has_the_mean_of_the_capped_output(cache: Cache, plain: Any) -> None:
    store = cache.root.parent / "moments"
    settings = CacheSettings(
        seq_len=16, rows_per_shard=64, max_rows=64, batch_size=2, moments_only=True, top_k=8, tail_samples=4
    )
    request = CacheRequest(
        model=cache.plan.model.id, corpus="demo", store=store, settings=settings, device="cpu"
    )
    moments = write_cache(request).cache
    log_p_NV = plain(torch.from_numpy(moments.tokens[:4].astype(np.int64)))[:, 1:].flatten(0, 1)
    np.testing.assert_allclose(
        moments.log_mean_output(moments.shards), log_p_NV.exp().mean(0).log().numpy(), atol=1e-3
    )


def test_the_panel_knows_the_model(cache: Cache, lenses: Path) -> None:
    evaluation = evaluate(load_lenses(lenses), cache, settings=EvaluateSettings(resamples=2))
    assert evaluation.logit_lens[1].kl == pytest.approx(0, abs=1e-3)
    assert evaluation.model is not None and evaluation.model.kl == pytest.approx(0, abs=1e-4)
    assert evaluation.mean_output.kl > 0.1


def test_exact_distributions_are_capped(cache: Cache) -> None:
    top_NK = ExactDistributions.of(cache, torch.device("cpu")).most_probable(
        cache.read("targets/final", slice(0, 32)), 8
    )
    np.testing.assert_allclose(cache.targets(slice(0, 32)).log_probs_NK, top_NK, atol=5e-3)


@pytest.mark.parametrize("objective", ["forward-kl", pytest.param("reverse-kl", marks=pytest.mark.slow)])
def test_each_objective_fits_to_capped_targets(cache: Cache, tmp_path: Path, objective: str) -> None:
    settings = FitSettings(
        layers=(1,), heads=(0,), steps=15, batch_rows=64, eval_rows=60, objective=objective
    )
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=cache.root, lenses=tmp_path / "l", settings=settings, device="cpu"))
    lenses = load_lenses(tmp_path / "l")
    judged = evaluate(lenses, cache, settings=EvaluateSettings(resamples=2))
    assert lenses.record.held_out["1"][0]["kl"] == pytest.approx(judged.lens[1][0].kl, rel=0.2)
    assert judged.lens[1][0].kl < judged.mean_output.kl * 1.02


def test_what_the_model_says_of_a_prompt_is_capped(reader: HeadReader, plain: Any) -> None:
    ids = reader.tokens(PROMPT)
    expected_TV = plain(torch.tensor([ids]))[0]
    ran = reader.run(ids, [1])
    torch.testing.assert_close(reader.model_log_probs(ran), expected_TV, atol=2e-5, rtol=1e-5)
    (place, *_) = read_page(reader, [PROMPT]).prompts[0]["places"]
    assert place.stream is not None and place.stream.kl[-1] == 0  # after the last layer: the model itself


def test_losses_and_influences_are_those_of_capped_logits(reader: HeadReader, plain: Any) -> None:
    model, tokens_BT = reader.model, torch.arange(5, 3000, 188).reshape(1, 16)
    batches = Windows(batches=(tokens_BT,))
    loss = loss_of(model, batches, EditedRuns(model, batches.batches, []))
    log_p_TV = plain(tokens_BT)[0]
    expected = -log_p_TV[:-1].gather(1, tokens_BT[0, 1:, None]).sum()
    assert loss.nats_W.sum() == pytest.approx(float(expected), rel=1e-5)
    other_BT = tokens_BT.clone()
    other_BT[0, 0] = 9
    finals = [EditedRuns(model, [some_BT], []).clean[0].final_BTD[0] for some_BT in (tokens_BT, other_BT)]
    kl_T = kl_of_log_probs(log_p_TV, plain(other_BT))[0]
    torch.testing.assert_close(_kl(model, finals[0], finals[1][None])[0].float(), kl_T, rtol=1e-3, atol=1e-5)
