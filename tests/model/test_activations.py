"""A forward pass: what it gives, and models that it refuses."""

import dataclasses

import pytest
import torch

from alens.errors import RequestError
from alens.model import activations, models


def test_a_forward_pass_unembeds_one_position_only(model: models.LoadedModel) -> None:
    tokens_BT = torch.arange(24).reshape(2, 12)
    forward = activations.run(model, tokens_BT, [1])
    assert forward.z_BTHE[1].shape == (2, 12, 6, 32)
    assert forward.final_BTD.shape == (2, 12, 192)
    assert forward.last_logits_BV.shape == (2, 4096)


def test_a_layer_without_hook_z_is_refused(model: models.LoadedModel) -> None:
    with pytest.raises(
        RequestError, match=r"GPT2LMHeadModel lacks what alens needs .*blocks\.9\.attn\.hook_z"
    ):
        activations.run(model, torch.arange(8)[None], [9])


def test_logits_that_are_not_the_unembedding_are_refused(model: models.LoadedModel) -> None:
    with torch.inference_mode():
        forward = activations.run(model, torch.arange(8)[None], [0])
    activations.check_unembedding(model, forward)
    capped = dataclasses.replace(forward, last_logits_BV=torch.tanh(forward.last_logits_BV))
    with pytest.raises(RequestError, match="something else to their logits are not supported"):
        activations.check_unembedding(model, capped)
