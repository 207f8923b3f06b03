"""Mixtures of experts, hybrids and latent attention through the whole path, against plain transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.store.cache_reader import Cache

from ..model.kinds import HALF, KINDS, Kind
from ..outcomes import refusal

CACHE = (
    "--seq-len",
    16,
    "--rows-per-shard",
    64,
    "--max-rows",
    256,
    "--batch-size",
    2,
    "--top-k",
    8,
    "--tail-samples",
    4,
)
FIT = ("--steps", 2, "--batch-rows", 32, "--eval-rows", 31)
BEHIND = "post_attention_layernorm"
QUICK = ("deepseek-v3",)


def assert_plain(cache: Cache, folder: Path, kind: Kind) -> None:
    """z and targets of the cache are those of transformers alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda module, given: kept.update({layer: given[0]})

    for layer in kind.layers:
        model.get_submodule(f"model.layers.{layer}.{kind.projection}").register_forward_pre_hook(keep(layer))
    with torch.inference_mode():
        logits_BTV = model.eval()(torch.from_numpy(cache.tokens.astype(np.int64)), use_cache=False).logits
    place_N = cache.read("rows/sequence", slice(None)).astype(int) * 16 + cache.read(
        "rows/position", slice(None)
    )
    for layer in kind.layers:
        z_NF = cache.z(layer, slice(None)).reshape(256, -1)
        plain_NF = kept[layer].reshape(256, -1)[place_N].numpy()
        assert np.abs(plain_NF).max() > 0.01
        np.testing.assert_allclose(z_NF, plain_NF, rtol=1.1 * 2**-11, atol=2e-5)
        W_O_FD = model.get_submodule(f"model.layers.{layer}.{kind.projection}").weight.T.numpy(force=True)
        if cache.plan.model.head_write == "normed":  # the gain of the norm behind attention is in it
            W_O_FD = W_O_FD * model.get_submodule(f"model.layers.{layer}.{BEHIND}").weight.numpy(force=True)
        np.testing.assert_allclose(cache.weights("W_O")[layer].reshape(W_O_FD.shape), W_O_FD, rtol=2e-6)
    log_probs_NV = logits_BTV.log_softmax(-1).reshape(256, -1)[place_N]
    targets = cache.targets(slice(None))
    np.testing.assert_allclose(
        targets.log_probs_NK, log_probs_NV.topk(8).values, rtol=1.1 * 2**-11, atol=1e-3
    )


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_a_model_of_this_kind_goes_through_the_whole_path(run_alens: Any, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    folder, store, lenses = kind.save(tmp_path / "model"), tmp_path / "store", tmp_path / "lenses"
    outcome = run_alens("cache", folder, "demo", store, *CACHE)
    assert outcome.code == 0, outcome
    assert ("layers 0,2 of" in outcome.stderr) == (
        "have no attention heads: taking layers 1,3" in outcome.stderr
    )
    assert ("taking layers 1,3" in outcome.stderr) == (kind.layers == HALF)
    cache = open_cache(store)
    assert (cache.plan.model.n_heads, cache.plan.model.d_head, cache.plan.layers) == (
        4,
        kind.d_head,
        kind.layers,
    )
    assert_plain(cache, folder, kind)
    if kind.layers == HALF:  # resumed, with and without the names of its layers
        assert_runs(run_alens, "cache", folder, "demo", store, *CACHE)
        assert "4 layers, of which 1,3 have heads" in run_alens("info", store).stdout
    assert_runs(run_alens, "fit", store, lenses, *FIT)
    assert_runs(run_alens, "eval", lenses, store, "--rows", 31)
    assert_runs(run_alens, "read", lenses, "The king said", "--details")
    injected = run_alens(
        "inject", lenses, "The king", "--tokens", "the", "--head", "1.0", "--by", "unembedding"
    )
    if kind.no_write is None:
        assert injected.code == 0, injected
    else:
        assert refusal(injected, after_log=True).startswith(kind.no_write)
    assert_runs(run_alens, "verify", store, "--deep", 8)


def assert_runs(run_alens: Any, *arguments: object) -> None:
    outcome = run_alens(*arguments)
    assert outcome.code == 0, outcome
