"""A prompt -> where chosen heads look from chosen positions, and how much they move from there.

In: the tokens of one prompt and the loaded model. Out: for each layer the attention weights of its heads over the source
tokens, and the size of what each source adds to the residual stream: the norm of `weight v W_O`, after Kobayashi et al.,
"Attention is Not Only a Weight" (arXiv 2004.10102). A weight alone misleads: heads with nothing to do look at the first
token, whose v is small. Everything else of a layer is dropped once its forward pass is over.
Shapes: H heads, Q positions that look, T tokens of the prompt (sources), E d_head, K key-value heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.model import activations
from alens.model.models import LoadedModel

SAME_Z = 1e-2
"""How far the sum of weighted values may be from z, as a share of z's norm: another sum is other attention."""


@dataclass(frozen=True, kw_only=True)
class AttentionSources:
    """Where the heads of one layer look; sources after a position have zeros."""

    weights_HQT: torch.Tensor
    """Float32; a row sums to 1, or to less where the model gives a part to no token."""
    moved_HQT: torch.Tensor
    """Float32: the norm of what each source adds to the residual stream through the head."""


def attention_sources(
    model: LoadedModel, tokens: Sequence[int], heads: Heads, places: Sequence[int]
) -> dict[int, AttentionSources]:
    """By layer, the sources of `heads` at `places`; one forward pass.

    Raises `RequestError` where TransformerLens does not show weights and values of these heads, or z is not their sum.
    """
    record = model.source.record
    by_layer: dict[int, AttentionSources] = {}
    parts: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(value: torch.Tensor, hook: Any) -> None:
            heads_first = name == "v" and getattr(hook, "pos_dim", 1) == 2  # latent attention: (B, H, T, E)
            parts[name] = value[0].transpose(0, 1) if heads_first else value[0]

        return hook

    def finish(layer: int) -> Any:
        def hook(z_BTHE: torch.Tensor, hook: Any) -> None:
            if parts.keys() != {"pattern", "v"}:
                raise _hidden(record.architecture, layer)
            W_O_HED = model.W_O_LHED[layer, list(heads.by_layer[layer])]
            chosen = list(heads.by_layer[layer])
            pattern_HTT, v_THE = parts.pop("pattern"), _of_each_head(parts.pop("v"), record.n_heads)
            if pattern_HTT.shape[0] != record.n_heads or v_THE.shape[1:] != z_BTHE.shape[2:]:
                raise _hidden(record.architecture, layer)
            weights_HQT, v_HTE = (
                pattern_HTT[chosen][:, list(places)].float(),
                v_THE[:, chosen].transpose(0, 1).float(),
            )
            z_HQE = z_BTHE[0, list(places)][:, chosen].transpose(0, 1).float()
            if not bool((weights_HQT @ v_HTE - z_HQE).norm() <= SAME_Z * z_HQE.norm()):
                raise RequestError(
                    f"z of layer {layer} of {record.architecture} is not the sum of its values by attention weight: alens does "
                    "not know such attention"
                )
            written_HT = (v_HTE @ W_O_HED.float()).norm(dim=-1)
            by_layer[layer] = AttentionSources(
                weights_HQT=weights_HQT, moved_HQT=weights_HQT * written_HT[:, None]
            )

        return hook

    def divide(layer: int) -> Any:
        def hook(output_BTD: torch.Tensor, hook: Any) -> None:
            seen, scale_BT = by_layer[layer], model.behind[layer].scale(output_BTD)
            assert scale_BT is not None  # the layer has a norm
            moved_HQT = seen.moved_HQT / scale_BT[0, list(places), None]
            by_layer[layer] = AttentionSources(weights_HQT=seen.weights_HQT, moved_HQT=moved_HQT)

        return hook

    hooks = [
        (f"blocks.{layer}.attn.hook_{name}", make)
        for layer in heads.layers
        for name, make in (("v", keep("v")), ("pattern", keep("pattern")), ("z", finish(layer)))
    ]
    normed = [layer for layer in heads.layers if any(one.norm for one in model.behind[layer : layer + 1])]
    hooks += [(activations.NORM_BEHIND.format(layer), divide(layer)) for layer in normed]
    try:
        with torch.inference_mode():
            activations.run_hooked(model, torch.tensor([list(tokens)]), hooks)
    except KeyError as error:  # a hook name that the bridge does not know
        raise RequestError(
            f"{record.architecture} does not show its attention in TransformerLens: {error}"
        ) from None
    if missing := [layer for layer in heads.layers if layer not in by_layer]:
        raise _hidden(record.architecture, missing[0])
    return by_layer


def _of_each_head(v_TKE: torch.Tensor, heads: int) -> torch.Tensor:
    """(T, H, E): heads of a group share their values."""
    groups = v_TKE.shape[1]
    return v_TKE.repeat_interleave(heads // groups, dim=1) if groups and heads % groups == 0 else v_TKE


def _hidden(architecture: str, layer: int) -> RequestError:
    return RequestError(
        f"{architecture} does not show where the heads of layer {layer} look in TransformerLens"
    )
