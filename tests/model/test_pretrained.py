import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import demo
from alens.errors import RequestError
from alens.model import pretrained
from alens.model.libraries import quiet

Weights = dict[str, torch.Tensor]
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The demo with other weights and another configuration."""

    def make(change: Callable[[Weights], Weights] = dict, **config: Any) -> Path:
        root = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
        save_file(change(load_file(root / "model.safetensors")), root / "model.safetensors", {"format": "pt"})
        settings = json.loads((root / "config.json").read_text())
        (root / "config.json").write_text(json.dumps(settings | config))
        return root

    return make


def load(folder: Path) -> Any:
    with quiet():
        return pretrained.load(folder, torch.float32)


def with_prefix(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if name not in names}


def narrow(weights: Weights) -> Weights:
    return {**weights, "transformer.h.1.ln_1.weight": torch.ones(100)}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_with_a_prefix_are_refused(folder: Folder, prefix: str) -> None:
    """Such a model was once filled with random numbers, and its cache sealed; logits were 12.7 off."""
    root = folder(with_prefix(prefix))
    with pytest.raises(RequestError) as refusal:
        load(root)
    message = str(refusal.value)
    assert message.startswith(
        f"{root} is not a whole GPT2LMHeadModel: it lacks 53 of its 53 tensors (lm_head.weight, transformer.h.0."
    )
    assert f"tensors of its files unused ({prefix}transformer.h.0." in message
    assert f"the names begin with {prefix!r}" in message
    assert message.count(", ...)") == 2 and "\n" not in message


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (without("transformer.h.2.mlp.c_fc.weight"), {}, r"it lacks 1 of its 53 tensors \(transformer.h.2.mlp.c_fc.weight\);"),
        (without("transformer.wte.weight"), {}, r"it lacks 2 of its 53 tensors \(lm_head.weight, transformer.wte.weight\)"),
        (dict, {"tie_word_embeddings": False}, r"it lacks 1 of its 53 tensors \(lm_head.weight\)"),
        (dict, {"n_layer": 5}, r"it lacks 12 of its 65 tensors"),
        (narrow, {}, r"1 tensor of another shape \(transformer.h.1.ln_1.weight is 100, not 192\)"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_whole_is_refused(
    folder: Folder, change: Callable[[Weights], Weights], config: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        load(folder(change, **config))


def test_a_model_that_was_saved_without_its_head_is_refused_unless_that_is_tied(tmp_path: Path) -> None:
    """`AutoModel` saves no `lm_head`, and names without the prefix of the base model."""
    from transformers import AutoModel, GPT2Config, GPT2LMHeadModel

    for tied in (True, False):
        torch.manual_seed(0)
        whole, saved = tmp_path / f"whole-{tied}", tmp_path / f"saved-{tied}"
        config = GPT2Config(
            n_layer=1, n_head=2, n_embd=8, vocab_size=64, n_positions=8, tie_word_embeddings=tied
        )
        with quiet():
            GPT2LMHeadModel(config).save_pretrained(whole)
            AutoModel.from_pretrained(whole).save_pretrained(saved)
        if tied:
            weights = load(saved).state_dict()
            torch.testing.assert_close(weights, load(whole).state_dict(), rtol=0, atol=0)
        else:
            with pytest.raises(
                RequestError, match=r"GPT2LMHeadModel: it lacks 1 of its 17 tensors \(lm_head.weight\)"
            ):
                load(saved)


def test_what_the_model_does_not_use_is_named(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(n_layer=3)
    with caplog.at_level(logging.WARNING, "alens"):
        load(root)
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: GPT2LMHeadModel leaves 11 tensors of its files unused (transformer.h.3.attn.c_attn.weight, "
        "transformer.h.3.attn.c_proj.bias, transformer.h.3.attn.c_proj.weight, ...)"
    ]


def test_a_whole_checkpoint_is_loaded_as_it_is_and_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    stored = load_file(demo.MODEL / "model.safetensors")
    model = load(demo.MODEL)
    for name, value in stored.items():
        torch.testing.assert_close(model.state_dict()[name], value.float(), rtol=0, atol=0)
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    assert not caplog.records


def test_a_forward_pass_keeps_no_keys_and_values() -> None:
    assert load(demo.MODEL)(torch.tensor([[1, 2, 3]])).past_key_values is None
