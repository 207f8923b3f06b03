"""AttentionLens checkpoints, made here with the published key names, become maps on z that say exactly the same."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformer_lens import TransformerBridge

from alens import demo
from alens.errors import RequestError
from alens.exchange import attention_lens
from alens.model import activations
from alens.model.models import LoadedModel
from alens.store.schema import ATTN_Z

from .import_requests import request

Publish = Callable[..., Path]


TOKENS = torch.tensor([[10, 200, 3000, 7, 42, 1]])


def published(path: Path, prefix: str, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return state[f"{prefix}linears.{head}.weight"], state[f"{prefix}linears.{head}.bias"]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_on_z_it_is_the_published_map_of_head_outputs(
    checkpoint: Publish, model: LoadedModel, legacy: bool
) -> None:
    path = checkpoint(legacy=legacy)
    lenses = attention_lens.read(request(path), model)
    assert (lenses.heads.names, lenses.site) == ([f"2.{head}" for head in range(6)], ATTN_Z)
    assert lenses.notes["model_weights"] == {"2": "raw"}
    z_THE = activations.run(model, TOKENS, [2]).z_BTHE[2][0]
    maps = lenses.maps(2)
    for head in (0, 5):
        weight_VD, bias_V = published(path, "attn_lens.", head)
        expected = z_THE[:, head] @ model.W_O_LHED[2, head] @ weight_VD.T + bias_V
        torch.testing.assert_close(maps.logits(head, z_THE[:, head]), expected, rtol=1e-4, atol=1e-4)


def test_early_checkpoints_are_of_processed_weights_and_turned_back_exactly(
    checkpoint: Publish, model: LoadedModel
) -> None:
    """Their keys are `lenses.0.linears`; the head outputs are those of TransformerLens' own processing."""
    path = checkpoint(prefix="attn_lens.lenses.0.")
    lenses = attention_lens.read(request(path), model)
    assert lenses.notes["model_weights"] == {"2": "processed"}
    z_THE = activations.run(model, TOKENS, [2]).z_BTHE[2][0]

    processed = TransformerBridge.boot_transformers(str(demo.MODEL), device="cpu", dtype=torch.float32)
    processed.enable_compatibility_mode(disable_warnings=True)
    with torch.no_grad():
        _, seen = processed.run_with_cache(TOKENS, names_filter="blocks.2.attn.hook_z")
    theirs_THE, W_O_HED = seen["blocks.2.attn.hook_z"][0], processed.W_O[2].detach()
    assert float((theirs_THE - z_THE).abs().max()) > 1e-3  # they are other numbers
    for head in (0, 5):
        weight_VD, bias_V = published(path, "attn_lens.lenses.0.", head)
        expected = theirs_THE[:, head] @ W_O_HED[head] @ weight_VD.T + bias_V
        torch.testing.assert_close(
            lenses.maps(2).logits(head, z_THE[:, head]), expected, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({"model.transformer.h.0.attn.c_attn.bias": torch.zeros(1)}, "raw"),
        ({"hooked_model.blocks.0.attn.W_O": torch.zeros(1)}, "processed"),
    ],
)
def test_keys_of_the_model_say_which_weights(
    checkpoint: Publish, model: LoadedModel, more: dict[str, torch.Tensor], taken: str
) -> None:
    path = checkpoint(more=more)
    assert attention_lens.read(request(path), model).notes["model_weights"] == {"2": taken}


def test_what_is_asked_for_beats_the_keys(checkpoint: Publish, model: LoadedModel) -> None:
    lenses = attention_lens.read(request(checkpoint(), weights="processed"), model)
    assert lenses.notes["model_weights"] == {"2": "processed"}


def test_a_bare_state_dict_is_read(model: LoadedModel, checkpoint: Publish, tmp_path: Path) -> None:
    torch.save(torch.load(checkpoint(prefix=""), weights_only=True)["state_dict"], tmp_path / "lens.pt")
    assert attention_lens.read(request(tmp_path / "lens.pt", layer=1), model).heads.layers == (1,)


def test_a_directory_gives_a_layer_a_file(checkpoint: Publish, model: LoadedModel, tmp_path: Path) -> None:
    checkpoint("attnlens-layer-0-epoch=00.ckpt")
    checkpoint("attnlens-layer-3-epoch=00.ckpt")
    assert attention_lens.read(request(tmp_path), model).heads.layers == (0, 3)
    assert attention_lens.read(request(tmp_path, layer=3), model).heads.layers == (3,)
    with pytest.raises(RequestError, match="has no checkpoint of layer 1"):
        attention_lens.read(request(tmp_path, layer=1), model)
    checkpoint("attnlens-layer-3-epoch=01.ckpt")
    with pytest.raises(RequestError, match="both hold layer 3: name one of them"):
        attention_lens.read(request(tmp_path), model)


@pytest.mark.parametrize(
    ("given", "layer", "message"),
    [
        ({"name": "last.ckpt"}, None, "does not say its layer: give it with --layer"),
        ({}, 1, "says layer 2, and --layer 1"),
        ({"name": "last.ckpt"}, 7, "layer 7 does not exist: demo has layers 0 to 3"),
        ({"heads": 4}, None, "has lenses of 4 heads, and demo 6 heads a layer"),
        ({"shape": (4096, 64)}, None, "has (4096, 64) for linears.0.weight, and demo needs (4096, 192)"),
        ({"prefix": "other."}, None, "has no attn_lens.linears.0.weight"),
        ({"prefix": "attn_lens.lenses.1."}, None, "holds lenses of several layers"),
        ({"more": {"model.lm_head.weight": torch.zeros(4096, 192)}}, None, "holds another model than demo"),
    ],
)
def test_what_does_not_fit_is_refused(
    checkpoint: Publish, model: LoadedModel, given: dict[str, object], layer: int | None, message: str
) -> None:
    path = checkpoint(**given)
    with pytest.raises(RequestError, match=re.escape(message)) as refused:
        attention_lens.read(request(path, layer=layer), model)
    assert path.name in str(refused.value) or "does not exist" in message


def test_the_models_own_weights_in_a_checkpoint_are_recognised(
    checkpoint: Publish, model: LoadedModel
) -> None:
    path = checkpoint(more={"model.lm_head.weight": model.W_U_DV.T.half()})
    assert attention_lens.read(request(path), model).heads.layers == (2,)
