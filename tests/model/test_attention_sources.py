"""Where heads look and what they move from there, beside transformers' own weights and a second way of counting."""

from pathlib import Path

import pytest
import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.model import attention_sources as module
from alens.model import models
from alens.model.attention_sources import attention_sources
from alens.model.models import LoadedModel

from .families import FAMILIES, save
from .kinds import KINDS

TOKENS, PLACES = list(range(5, 15)), [9, 0, 4]
BY_NAME = Heads(((0, 1), (0, 3), (1, 0), (1, 2)))


def loaded(name: str, tmp_path: Path) -> LoadedModel:
    family = KINDS.get(name) or FAMILIES[name]
    folder = save(tmp_path / name, family.config, family.options)
    return models.load(models.find(str(folder)), dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "deepseek-v3"])
def test_each_source_moves_its_part_of_what_the_head_adds(name: str, tmp_path: Path) -> None:
    """Llama's heads share values, and DeepSeek's are made from one vector. What all sources add is z W_O, which a pass without this module gives."""
    from transformers import AutoModelForCausalLM

    from alens.model.activations import run

    model = loaded(name, tmp_path)
    by_layer = attention_sources(model, TOKENS, BY_NAME, PLACES)
    plain = AutoModelForCausalLM.from_pretrained(
        tmp_path / name, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        expected = plain.eval()(torch.tensor([TOKENS]), output_attentions=True).attentions
    z_BTHE = run(model, torch.tensor([TOKENS]), (0, 1)).z_BTHE
    for layer, heads in BY_NAME.by_layer.items():
        of_layer = by_layer[layer]
        weights_HQT = expected[layer][0][list(heads)][:, PLACES]
        torch.testing.assert_close(of_layer.weights_HQT, weights_HQT, atol=1e-5, rtol=1e-4)
        # the first position sees itself alone, so it moves its whole output
        W_O_HED = model.W_O_LHED[layer, list(heads)]
        first_HD = torch.einsum("he,hed->hd", z_BTHE[layer][0, 0, list(heads)], W_O_HED)
        torch.testing.assert_close(of_layer.moved_HQT[:, 1, 0], first_HD.norm(dim=-1), rtol=1e-4, atol=1e-6)
        assert not of_layer.moved_HQT[:, 1, 1:].any() and not of_layer.moved_HQT[:, 2, 5:].any()
        last_HD = torch.einsum("he,hed->hd", z_BTHE[layer][0, 9, list(heads)], W_O_HED)
        assert bool((of_layer.moved_HQT[:, 0].sum(-1) >= last_HD.norm(dim=-1) * 0.999).all())  # a triangle
        share_HT = of_layer.moved_HQT[:, 0] / of_layer.weights_HQT[:, 0]
        torch.testing.assert_close(share_HT[:, 0], first_HD.norm(dim=-1), rtol=1e-3, atol=1e-6)


def test_attention_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", tmp_path)
    monkeypatch.setattr(module, "_of_each_head", lambda v_TKE, heads: 2 * v_TKE)
    with pytest.raises(RequestError, match=r"^z of layer 0 of GPT2LMHeadModel is not the sum of its values"):
        attention_sources(model, TOKENS, BY_NAME, PLACES)
    with pytest.raises(RequestError, match=r"GPT2LMHeadModel does not show .*blocks\.7"):
        attention_sources(model, TOKENS, Heads(((7, 0),)), PLACES)
