"""Token rows -> where every head looks, a layer at a time.

In: (B, T) tokens and the loaded model. Out: the attention weights of a layer, (B, H, T, T), as soon as they are there;
they are dropped afterwards, because those of all layers are large. Weights of a row (a query) are over the keys, at its
place and before it.
Shapes: B sequences, T tokens, H heads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from alens.errors import RequestError
from alens.model import activations
from alens.model.models import LoadedModel

See = Callable[[int, torch.Tensor], None]
"""Takes a layer and its attention weights, (B, H, T, T)."""


def see_attention(model: LoadedModel, tokens_BT: torch.Tensor, layers: Sequence[int], see: See) -> None:
    """One forward pass; `see` is called for each of `layers`, from below.

    Raises `RequestError` where TransformerLens does not show the weights of the model's heads.
    """
    record = model.source.record
    B, T = tokens_BT.shape
    seen: set[int] = set()

    def hook_of(layer: int) -> Any:
        def hook(pattern_BHTT: torch.Tensor, hook: Any) -> None:
            if pattern_BHTT.shape != (B, record.n_heads, T, T):
                raise RequestError(
                    f"the attention of layer {layer} of {record.architecture} is {' x '.join(map(str, pattern_BHTT.shape))}, not "
                    f"{B} x {record.n_heads} x {T} x {T}: alens does not know such attention"
                )
            seen.add(layer)
            see(layer, pattern_BHTT)

        return hook

    hooks = [(f"blocks.{layer}.attn.hook_pattern", hook_of(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            activations.run_hooked(model, tokens_BT, hooks)
    except KeyError as error:  # a hook name that the bridge does not know
        raise RequestError(
            f"{record.architecture} does not show its attention in TransformerLens: {error}"
        ) from None
    if missing := [layer for layer in layers if layer not in seen]:
        raise RequestError(
            f"{record.architecture} does not show the attention of layer {missing[0]} in TransformerLens"
        )
