"""Values of tokens are z of sequences of one token, in models of several families."""

from pathlib import Path

import pytest
import torch

from alens.errors import RequestError
from alens.model import models
from alens.model.token_values import TokenValues

from .families import FAMILIES, GATED, save

TOKENS = torch.tensor([7, 99, 500, 1000, 2000])


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "bloom"])
def test_the_lowest_layer_takes_embeddings(name: str, tmp_path: Path) -> None:
    """Where positions are added to the embedding, they are left out: all tokens then stand nowhere."""
    folder = save(tmp_path / name, FAMILIES[name].config, FAMILIES[name].options)
    loaded = models.load(models.find(str(folder)), dtype="float32", device="cpu")
    values_HSE = TokenValues(loaded, TOKENS).layer(0)
    block = loaded.bridge.blocks[0]
    embedded_SD = loaded.bridge.embed(TOKENS[None])[0]
    if name == "bloom":
        embedded_SD = loaded.bridge.embed_ln(embedded_SD)
    normed_SD = block.ln1(embedded_SD[None])[0] - block.ln1(torch.zeros(1, 1, 32))[0]
    W_V_HDE = block.attn.W_V.repeat_interleave(4 // len(block.attn.W_V), dim=0)
    torch.testing.assert_close(values_HSE, normed_SD @ W_V_HDE, atol=1e-5, rtol=1e-4)
    assert TokenValues(loaded, TOKENS).layer(1).shape == (4, 5, 8)


def test_heads_of_a_group_take_the_same_values(tmp_path: Path) -> None:
    folder = save(tmp_path / "llama", FAMILIES["llama"].config, FAMILIES["llama"].options)
    values_HSE = TokenValues(
        models.load(models.find(str(folder)), dtype="float32", device="cpu"), TOKENS
    ).layer(1)
    assert torch.equal(values_HSE[0], values_HSE[1]) and torch.equal(values_HSE[2], values_HSE[3])
    assert not torch.allclose(values_HSE[0], values_HSE[2])


def test_a_model_without_a_norm_before_its_heads_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "olmo2", "Olmo2Config", GATED)
    values = TokenValues(models.load(models.find(str(folder)), dtype="float32", device="cpu"), TOKENS)
    with pytest.raises(RequestError, match="layer 0 of Olmo2ForCausalLM has no W_V behind a norm"):
        values.layer(0)
