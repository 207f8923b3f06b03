"""Tokens -> the value that each head takes from them, wherever they stand: from the parameters, not from a text.

In: a loaded model and some tokens. Out: for each layer the values of its heads, (H, S, E), from what the model has of a
token before any head has moved anything. For the lowest layer this is the embedding. For the layers above it is the
embedding with what the lowest block makes of it, its heads left out: there the MLP extends the embedding
(arXiv 2412.11965 takes the MLP's output alone, which would be nothing where the MLP does nothing). Positions that are
added to the embedding are left out. The layer's first norm is applied, without its offset, then W_V, without its bias:
offset and bias are the same for all tokens. Heads that share values have those of their group.
Shapes: S tokens, B tokens that are tried, H heads, E d_head, D d_model.
"""

from typing import Any

import torch

from alens.errors import RequestError
from alens.model import activations
from alens.model.models import LoadedModel

APART = 1e-3
"""How far rounding may take these values from z of a sequence of one token, which can look at nothing else, as a share."""

TRIED = 4
"""With how many tokens this is tried."""

POSITIONS = "pos_embed.hook_out"


class TokenValues:
    """The values that heads take from S tokens."""

    def __init__(self, model: LoadedModel, tokens_S: torch.Tensor) -> None:
        """Raises `RequestError` where the model does not show its residual stream."""
        self._model = model
        self._tried_B1 = tokens_S[:TRIED, None]
        self._embedded_SD, self._extended_SD = _streams(model, tokens_S[:, None])

    def layer(self, layer: int) -> torch.Tensor:
        """(H, S, E) float32. Raises `RequestError` where z of the layer is not made of values in this way."""
        stream_BD, z_BHE = self._seen(layer)
        ours_HBE, seen_HBE = _values(self._model, layer, stream_BD), z_BHE.transpose(0, 1)
        if _apart(ours_HBE, seen_HBE) > APART:
            raise RequestError(
                f"z of layer {layer} of {self._model.source.record.architecture} is not W_V of its normed input: alens does not "
                "know how its heads take values"
            )
        return _values(self._model, layer, self._embedded_SD if layer == 0 else self._extended_SD)

    def _seen(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, D) the stream before a layer and (B, H, E) z of it, on sequences of one token."""
        kept = _run(
            self._model, self._tried_B1, [f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.attn.hook_z"]
        )
        return kept[0][:, 0].float(), kept[1][:, 0].float()


def _streams(model: LoadedModel, tokens_S1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, D) the embeddings, and (S, D) the stream after the lowest block, whose heads write nothing."""
    known = model.bridge.hook_dict
    silenced = [place for place in (POSITIONS, "blocks.0.attn.hook_z") if place in known]
    embedded, extended = _run(
        model, tokens_S1, ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"], silenced
    )
    return embedded[:, 0].float(), extended[:, 0].float()


def _run(
    model: LoadedModel, tokens_B1: torch.Tensor, places: list[str], silenced: list[str] | None = None
) -> list[torch.Tensor]:
    """What stands at `places` in one forward pass, with zeros at those that are `silenced`."""
    kept: dict[str, torch.Tensor] = {}

    def keep_at(place: str) -> Any:
        def keep(value: torch.Tensor, hook: Any) -> None:
            kept[place] = value.clone()

        return keep

    def silence(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.zeros_like(value)

    hooks = [*((place, silence) for place in silenced or ()), *((place, keep_at(place)) for place in places)]
    architecture = model.source.record.architecture
    try:
        with torch.inference_mode():
            activations.run_hooked(model, tokens_B1, hooks)
    except KeyError as error:
        raise RequestError(
            f"{architecture} does not show what alens needs in TransformerLens: {error}"
        ) from None
    if missing := [place for place in places if place not in kept]:
        raise RequestError(f"{architecture} does not show {missing[0]} in TransformerLens")
    return [kept[place] for place in places]


def _values(model: LoadedModel, layer: int, stream_SD: torch.Tensor) -> torch.Tensor:
    """(H, S, E) float32: the first norm of a layer without its offset, and W_V without its bias."""
    block, record = model.bridge.blocks[layer], model.source.record
    try:
        norm, W_V_GDE = block.ln1, block.attn.W_V.float()
    except (AttributeError, ValueError, RuntimeError):
        W_V_GDE = torch.empty(0, 0, 0)
    if W_V_GDE.shape[1:] != (record.d_model, record.d_head) or record.n_heads % max(1, len(W_V_GDE)):
        raise RequestError(
            f"layer {layer} of {record.architecture} has no W_V behind a norm in TransformerLens: alens does not know how its "
            "heads take values"
        )
    with torch.inference_mode():
        normed_1SD = norm(stream_SD[None]) - norm(torch.zeros_like(stream_SD[None]))
        W_V_HDE = W_V_GDE.repeat_interleave(record.n_heads // len(W_V_GDE), dim=0)
        values_HSE: torch.Tensor = normed_1SD.float() @ W_V_HDE
    return values_HSE


def _apart(ours_HBE: torch.Tensor, seen_HBE: torch.Tensor) -> float:
    """How far the two are apart as a share of the second, without what all tokens share."""
    ours, seen = (value - value.mean(1, keepdim=True) for value in (ours_HBE, seen_HBE))
    return float((ours - seen).norm() / seen.norm().clamp_min(torch.finfo(torch.float32).tiny))
