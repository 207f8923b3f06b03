"""A cache of SmolLM2 against a plain forward pass of transformers: z, what heads write, targets, the exact teacher.

Nine heads read three key-value heads, and 49,152 tokens share one matrix for embedding and unembedding.
Shapes: N rows, H heads, E d_head, D d_model, K top-k, V vocabulary.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from alens import open_cache

from .conftest import LAYERS

pytestmark = pytest.mark.real

SEQUENCES = 4
"""Spread over the cache, the last of held-out stories."""


class Plain(NamedTuple):
    """What transformers computes at the rows of some sequences."""

    rows: np.ndarray
    log_probs_NV: torch.Tensor
    z_NHE: dict[int, torch.Tensor]
    attention_ND: dict[int, torch.Tensor]
    logsumexp_N: torch.Tensor


@pytest.fixture(scope="module")
def plain(real_cache: Path, plain_model: Any) -> Plain:
    cache = open_cache(real_cache)
    places = np.linspace(0, len(cache.tokens) - 1, SEQUENCES).astype(int)
    z, written, handles = {}, {}, []
    for layer in LAYERS:
        projection = plain_model.model.layers[layer].self_attn.o_proj

        def keep(module: Any, given: Any, output: Any, layer: int = layer) -> None:
            z[layer], written[layer] = given[0].flatten(0, 1).unflatten(-1, (9, 64)), output.flatten(0, 1)

        handles.append(projection.register_forward_hook(keep))
    with torch.inference_mode():
        logits_NV = plain_model(torch.from_numpy(cache.tokens[places].astype(np.int64))).logits.flatten(0, 1)
    for handle in handles:
        handle.remove()
    # Within a shard rows stand in an order of their own.
    place_N = cache.read("rows/sequence", slice(None)).astype(int) * cache.plan.settings.seq_len
    place_N += cache.read("rows/position", slice(None))
    rows_by_place = np.argsort(place_N).reshape(cache.tokens.shape)
    rows = rows_by_place[places].reshape(-1)
    return Plain(rows, logits_NV.log_softmax(-1), z, written, logits_NV.logsumexp(-1))


@pytest.mark.parametrize("layer", LAYERS)
def test_z_is_what_the_output_matrix_is_given(real_cache: Path, plain: Plain, layer: int) -> None:
    z_NHE = torch.from_numpy(open_cache(real_cache).z(layer, plain.rows)).float()
    assert z_NHE.shape == plain.z_NHE[layer].shape
    torch.testing.assert_close(z_NHE, plain.z_NHE[layer], rtol=2**-10, atol=2e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_heads_write_what_the_attention_writes(real_cache: Path, plain: Plain, layer: int) -> None:
    written_NHD = open_cache(real_cache).head_outputs(plain.rows, layers=[layer])[:, 0]
    sum_ND = torch.from_numpy(written_NHD.sum(1))
    difference = (sum_ND - plain.attention_ND[layer]).norm() / plain.attention_ND[layer].norm()
    assert difference < 2**-11


def test_targets_are_those_of_the_output(real_cache: Path, plain: Plain) -> None:
    targets = open_cache(real_cache).targets(plain.rows)
    log_probs_NV = plain.log_probs_NV
    ids_NK = torch.from_numpy(targets.ids_NK.astype(np.int64))
    kept_NK = torch.from_numpy(targets.log_probs_NK).float()
    torch.testing.assert_close(kept_NK, log_probs_NV.gather(1, ids_NK), rtol=2**-10, atol=2e-3)
    # Near ties may stand in another order, so the values are compared and not the ids.
    best_NK = log_probs_NV.topk(ids_NK.shape[1]).values
    torch.testing.assert_close(log_probs_NV.gather(1, ids_NK), best_NK, rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.from_numpy(targets.logsumexp_N), plain.logsumexp_N, rtol=1e-4, atol=1e-3)
    entropy_N = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
    torch.testing.assert_close(torch.from_numpy(targets.entropy_N), entropy_N, rtol=1e-3, atol=1e-3)
    tail_NM = torch.from_numpy(targets.tail_ids_NM.astype(np.int64))
    assert not (tail_NM[:, :, None] == ids_NK[:, None, :]).any()


def test_the_exact_teacher_gives_the_whole_output(real_cache: Path, plain: Plain) -> None:
    cache = open_cache(real_cache)
    final_ND = torch.from_numpy(cache.read("targets/final", plain.rows)).float()
    log_probs_NV = (final_ND @ torch.from_numpy(cache.weights("W_U")).float()).log_softmax(-1)
    kl_N = (plain.log_probs_NV.exp() * (plain.log_probs_NV - log_probs_NV)).sum(-1)
    assert float(kl_N.max()) < 1e-4
