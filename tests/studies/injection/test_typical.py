"""Means, covariances and sizes, against what transformers alone computes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alens import load_lenses
from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.studies.injection.typical import typical

LAYER, HEAD = 3, 4
TOKENS = [torch.arange(40).view(2, 20) + 300, torch.arange(7)[None] + 900]


def heads_of(model: Any, layer: int) -> torch.Tensor:
    """(N, H, E): what goes into the output matrix, at positions from 1 on."""
    collected: list[torch.Tensor] = []
    module = model.transformer.h[layer].attn.c_proj
    hook = module.register_forward_pre_hook(
        lambda module, given: collected.append(given[0][:, 1:].flatten(0, 1))
    )
    with torch.no_grad():
        for tokens_BT in TOKENS:
            model(tokens_BT)
    hook.remove()
    return torch.cat(collected).unflatten(-1, (6, 32))


def test_the_figures_of_a_head_are_those_of_its_rows(reader: LensedModel, plain_model: Any) -> None:
    z_NE = heads_of(plain_model, LAYER)[:, HEAD]
    W_O_ED = plain_model.transformer.h[LAYER].attn.c_proj.weight[HEAD * 32 : (HEAD + 1) * 32]
    statistics = typical(reader.model, TOKENS, [0, LAYER])[LAYER, HEAD]
    assert statistics.rows == len(z_NE) == 2 * 19 + 6
    torch.testing.assert_close(statistics.mean_E, z_NE.mean(0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        statistics.covariance_EE, torch.cov(z_NE.T, correction=0), atol=1e-3, rtol=1e-2
    )
    norms_N = (z_NE @ W_O_ED).norm(dim=1)
    assert statistics.output_norm == pytest.approx(float(norms_N.square().mean().sqrt()), rel=1e-4)


def test_the_mean_of_the_final_residual_gives_the_mean_logits(reader: LensedModel, plain_model: Any) -> None:
    with torch.no_grad():
        logits_NV = torch.cat([plain_model(tokens).logits[:, 1:].flatten(0, 1) for tokens in TOKENS])
    statistics = typical(reader.model, TOKENS, [0])[0, 0]
    ours_V = statistics.final_mean_D @ reader.model.W_U_DV + reader.model.b_U_V
    torch.testing.assert_close(ours_V, logits_NV.mean(0), atol=1e-3, rtol=1e-3)


def test_a_residual_site_has_one_entry_a_layer(residual_lenses: Path, plain_model: Any) -> None:
    reader = LensedModel(load_lenses(residual_lenses), device="cpu")
    (stream,) = typical(reader.model, TOKENS, [1], site="resid_post").items()
    assert stream[0] == (1, None)
    with torch.no_grad():
        states = [plain_model(tokens, output_hidden_states=True).hidden_states[2] for tokens in TOKENS]
    rows_ND = torch.cat([state[:, 1:].flatten(0, 1) for state in states])
    torch.testing.assert_close(stream[1].mean_E, rows_ND.mean(0), atol=1e-3, rtol=1e-3)
    assert stream[1].output_norm == pytest.approx(float(rows_ND.norm(dim=1).square().mean().sqrt()), rel=1e-4)


def test_single_tokens_have_no_row(reader: LensedModel) -> None:
    with pytest.raises(RequestError, match="no position after the first"):
        typical(reader.model, [torch.tensor([[5]])], [0])
