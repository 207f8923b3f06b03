"""What stands behind the unembedding is measured on the model, and its logits are those of plain transformers."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alens.errors import RequestError
from alens.model import activations, models
from alens.model.examine import examine_early
from alens.model.output_logits import OutputLogits, _fitted, output_logits
from alens.store.model_record import ModelRecord

from .families import FACTORS, save

TOKENS_BT = torch.arange(1, 4000, 125).reshape(2, 16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gemma2", "cohere"])
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, dtype: str) -> None:
    from transformers import AutoModelForCausalLM

    family = FACTORS[name]
    folder = save(tmp_path / name, family.config, family.options)
    model = models.load(models.find(str(folder)), dtype=dtype, device="cpu")
    assert (model.logit_scale, model.logit_cap) == (family.scale, family.cap)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    with torch.inference_mode():
        expected_BTV = plain.eval()(TOKENS_BT).logits.float()
        forward = activations.run(model, TOKENS_BT, [0])
        activations.check_unembedding(model, forward)
        logits_BTV = model.logits(forward.final_BTD)
    close = {"rtol": 1e-5, "atol": 2e-5} if dtype == "float32" else {"rtol": 0.01, "atol": 0.05}
    torch.testing.assert_close(logits_BTV, expected_BTV, **close)
    torch.testing.assert_close(model.logits(forward.final_BTD, [7, 5]), logits_BTV[..., [7, 5]], **close)
    if family.cap is not None:
        assert float(logits_BTV.max()) > 0.7 * family.cap  # where a cap bends
    W_U_DV, _ = model.unembedding("float32")
    plain_DV = plain.get_output_embeddings().weight.detach().T.float()
    torch.testing.assert_close(W_U_DV, plain_DV * family.scale, rtol=0, atol=0)


def asked(kind: Any, dtype: torch.dtype = torch.float32) -> OutputLogits | None:
    """What is told of a model whose logits are `kind` of what its unembedding gives."""
    powers = 2.0 ** torch.arange(-10, 16)
    asked_G = torch.cat([torch.zeros(1), powers, -powers])
    return _fitted(asked_G, kind(asked_G.to(dtype)).float(), [0.0625, 30.0, 12.0], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factor_and_cap_are_told_by_numbers(dtype: torch.dtype) -> None:
    assert asked(lambda x: x, dtype) == OutputLogits()
    assert asked(lambda x: x / 12, dtype) == OutputLogits(scale=1 / 12)
    assert asked(lambda x: 30 * torch.tanh(x / 30), dtype) == OutputLogits(cap=30.0)
    assert asked(lambda x: 30 * torch.tanh(x * 0.0625 / 30), dtype) == OutputLogits(scale=0.0625, cap=30.0)
    unnamed = asked(lambda x: x * 0.7, dtype)  # as many digits as are seen
    assert unnamed is not None and unnamed.scale == pytest.approx(0.7, rel=2e-3)


@pytest.mark.parametrize(
    "other", [lambda x: x + 1, lambda x: -x, lambda x: x.clamp(-5, 5), lambda x: x.abs(), lambda x: x * torch.nan]
)  # fmt: skip
def test_anything_else_is_told_too(other: Any) -> None:
    assert asked(other) is None


def test_a_bridge_that_shows_no_unembedding_is_compared_later(model: models.LoadedModel) -> None:
    def hooks(fwd_hooks: Any) -> None:
        raise KeyError("unembed.hook_out")

    record: ModelRecord = model.source.record
    assert output_logits(SimpleNamespace(hooks=hooks), None, record) == OutputLogits()


def test_a_model_that_does_something_else_is_refused_in_a_line(model: models.LoadedModel) -> None:
    wrong = dataclasses.replace(model, logit_cap=2.0)
    with pytest.raises(
        RequestError,
        match=r"^the logits of GPT2LMHeadModel are not W_U of the final residual, times a factor",
    ) as caught:
        examine_early(wrong, None)
    assert len(str(caught.value).splitlines()) == 1
