"""Attention weights are those that transformers gives, also where heads share keys."""

from pathlib import Path

import pytest
import torch

from alens.errors import RequestError
from alens.model import models
from alens.model.attention import see_attention

from .families import FAMILIES, save


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_weights_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    family = FAMILIES[name]
    folder = save(tmp_path / name, family.config, family.options)
    tokens_BT = torch.arange(5, 25).reshape(2, 10)
    seen: dict[int, torch.Tensor] = {}
    loaded = models.load(models.find(str(folder)), dtype="float32", device="cpu")
    see_attention(loaded, tokens_BT, (1, 0), seen.__setitem__)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        expected = plain.eval()(tokens_BT, output_attentions=True).attentions
    assert list(seen) == [0, 1]
    for layer, pattern_BHTT in seen.items():
        torch.testing.assert_close(pattern_BHTT, expected[layer], atol=1e-5, rtol=1e-4)


def test_a_layer_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    family = FAMILIES["gpt2"]
    folder = save(tmp_path / "gpt2", family.config, family.options)
    loaded = models.load(models.find(str(folder)), dtype="float32", device="cpu")
    with pytest.raises(RequestError, match=r"GPT2LMHeadModel does not show .*blocks\.7"):
        see_attention(loaded, torch.arange(5, 15)[None], (0, 7), lambda *_: None)
