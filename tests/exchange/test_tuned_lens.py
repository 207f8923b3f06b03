"""Tuned-lens directories, made here as the package saves them, give the logits of its own formula."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alens import demo
from alens.errors import DamageError, RequestError
from alens.exchange import tuned_lens
from alens.model import activations
from alens.model.models import LoadedModel

from .import_requests import request

Publish = Callable[..., Path]


TOKENS = torch.tensor([[10, 200, 3000, 7, 42, 1]])


@pytest.mark.parametrize("bias", [True, False])
def test_it_says_what_the_package_says_of_the_same_hidden_states(
    tuned: Publish, model: LoadedModel, bias: bool
) -> None:
    """Translator i reads hidden_states[i] of transformers, the input of block i."""
    path = tuned(bias=bias)
    published = tuned_lens.read(request(path), model)
    assert (published.heads.names, published.site) == (["0.0", "1.0", "2.0"], "resid_post")
    state = torch.load(path / "params.pt", weights_only=True)
    huggingface: Any = AutoModelForCausalLM.from_pretrained(
        demo.MODEL, dtype=torch.float32, attn_implementation="eager"
    )
    values = activations.run(model, TOKENS, [0, 1, 2], ("resid_post",)).sites_BTD
    with torch.no_grad():
        hidden = huggingface(TOKENS, output_hidden_states=True).hidden_states
        for layer in published.heads.layers:
            i = layer + 1
            h_TD = hidden[i][0]
            moved_TD = h_TD + h_TD @ state[f"{i}.weight"].T + (state[f"{i}.bias"] if bias else 0)
            expected = huggingface.lm_head(huggingface.transformer.ln_f(moved_TD))
            logits_TV = published.maps(layer).logits(0, values["resid_post", layer][0])
            torch.testing.assert_close(logits_TV, expected, rtol=1e-3, atol=1e-3)


def test_one_layer_can_be_chosen(tuned: Publish, model: LoadedModel) -> None:
    assert tuned_lens.read(request(tuned(), layer=1), model).heads.layers == (1,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"d_model": 768}, "config.json says d_model 768, and demo has 192"),
        ({"num_hidden_layers": 12}, "config.json says num_hidden_layers 12, and demo has 4"),
        ({"lens_type": "mlp"}, "says lens_type 'mlp': alens reads linear_tuned_lens"),
        ({"width": 64}, "params.pt has (64, 64) for 1.weight, and needs (192, 192)"),
    ],
)
def test_a_lens_of_another_model_is_refused(
    tuned: Publish, model: LoadedModel, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        tuned_lens.read(request(tuned(**config)), model)


def test_the_last_layer_has_no_translator(tuned: Publish, model: LoadedModel) -> None:
    with pytest.raises(RequestError, match="has no lens for layer 3: translators 1 to 3 read"):
        tuned_lens.read(request(tuned(), layer=3), model)


@pytest.mark.parametrize("layer", [None, 0])
def test_a_model_of_one_layer_has_none_to_import(
    tuned: Publish, model: LoadedModel, layer: int | None
) -> None:
    """Its one translator reads the embedding."""
    record = dataclasses.replace(model.source.record, n_layers=1)
    small = dataclasses.replace(model, source=dataclasses.replace(model.source, record=record))
    with pytest.raises(RequestError, match="model of one layer: its one translator reads the embedding"):
        tuned_lens.read(request(tuned(num_hidden_layers=1), layer=layer), small)


def test_missing_weights_are_named(tuned: Publish, model: LoadedModel) -> None:
    path = tuned()
    state = torch.load(path / "params.pt", weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "2.weight"}, path / "params.pt")
    with pytest.raises(RequestError, match=r"params\.pt has nothing for 2\.weight"):
        tuned_lens.read(request(path), model)
    (path / "params.pt").unlink()
    with pytest.raises(RequestError, match=r"params\.pt is not there"):
        tuned_lens.read(request(path), model)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_config_is_named(tuned: Publish, text: str) -> None:
    path = tuned()
    (path / "config.json").write_text(text)
    with pytest.raises(DamageError, match=r"config\.json is not whole"):
        tuned_lens.config(path)


def test_a_model_with_another_norm_is_refused(tuned: Publish, model: LoadedModel) -> None:
    other = dataclasses.replace(model, final_norm=None)
    with pytest.raises(
        RequestError, match="is neither a layer norm nor an RMS norm: alens reads no tuned lens of it"
    ):
        tuned_lens.read(request(tuned()), other)


def test_the_config_is_kept(tuned: Publish, model: LoadedModel) -> None:
    path = tuned()
    published = tuned_lens.read(request(path), model)
    assert published.notes["config"] == json.loads((path / "config.json").read_text())
