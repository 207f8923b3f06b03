"""Targets of a model in 16 bits: from float32 logits in new caches, from rounded ones in caches that an older alens began."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import CacheRequest, open_cache, write_cache
from alens.cache import prepare
from alens.cache.recompute import recompute
from alens.cache.request import RecomputeRequest
from alens.job.worker import Worker
from alens.store.cache_reader import Cache

Request = Callable[..., CacheRequest]

BFLOAT16 = {"dtype": "bfloat16", "exact_teacher": True, "max_rows": 256, "top_k": 16}


@pytest.fixture(scope="module")
def bfloat16_cache(small_request: Request, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    store = tmp_path_factory.mktemp("bfloat16") / "store"
    write_cache(small_request(store, settings=BFLOAT16))
    return open_cache(store)


@pytest.fixture(scope="module")
def older_cache(small_request: Request, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Begun with the plan of an older alens, by one of two workers, and finished by this one."""
    store = tmp_path_factory.mktemp("older") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "logits_dtype", lambda settings: None)
        write_cache(small_request(store, settings=BFLOAT16, worker=Worker(index=0, count=2)))
    plan = open_cache(store).plan
    write_cache(small_request(store, settings=BFLOAT16))
    assert open_cache(store).plan == plan
    return open_cache(store)


def exact_logits(cache: Cache) -> torch.Tensor:
    """(N, V) float64, from what the cache holds: bfloat16 numbers, which float16 keeps whole unless they are tiny."""
    final_ND, W_U_DV, b_U_V = (
        torch.from_numpy(array).double()
        for array in (cache.read("targets/final", slice(None)), cache.weights("W_U"), cache.weights("b_U"))
    )
    return final_ND @ W_U_DV + b_U_V


def test_targets_of_a_bfloat16_model_are_those_of_its_exact_teacher(bfloat16_cache: Cache) -> None:
    targets, logits_NV = bfloat16_cache.targets(slice(None)), exact_logits(bfloat16_cache)
    log_probs_NV = logits_NV.log_softmax(-1)
    entropy_N = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
    np.testing.assert_allclose(targets.logsumexp_N, logits_NV.logsumexp(-1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(targets.entropy_N, entropy_N, rtol=0, atol=5e-5)
    best = log_probs_NV.topk(16)
    np.testing.assert_allclose(targets.log_probs_NK, best.values, rtol=2**-11, atol=1e-5)
    assert (best.indices.numpy() == targets.ids_NK).all()


def test_a_cache_that_an_older_alens_began_is_finished_as_it_was_begun(
    bfloat16_cache: Cache, older_cache: Cache
) -> None:
    assert older_cache.sealed and older_cache.plan.target_logits is None
    assert bfloat16_cache.plan.target_logits == "float32"
    assert older_cache.plan.identity != bfloat16_cache.plan.identity
    error_N = older_cache.targets(slice(None)).logsumexp_N - exact_logits(older_cache).logsumexp(-1).numpy()
    for error in np.split(np.abs(error_N), older_cache.plan.num_shards):
        assert 1e-4 < error.mean() < 1e-2


@pytest.mark.parametrize("which", ["bfloat16_cache", "older_cache"])
def test_computed_again_either_agrees(which: str, request: pytest.FixtureRequest) -> None:
    cache = request.getfixturevalue(which)
    again = recompute(cache, RecomputeRequest(rows=64, device="cpu"))
    assert again.agrees
    errors = {one.array: one.difference for one in again.comparisons}
    assert errors["targets/logsumexp"] < 2e-5, errors


def test_plans_of_float32_models_are_as_they_were(small_cache: Path) -> None:
    assert open_cache(small_cache).plan.target_logits is None
