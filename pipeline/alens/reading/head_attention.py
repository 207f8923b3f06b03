"""Where heads look on a prompt: the weights over its tokens, and the size of what is moved from each.

In: lenses with their model, the tokens of a prompt, heads and positions. Out: an `Attention` for each head and position,
or the reason why it cannot be had.
"""

from collections.abc import Sequence

from alens.errors import RequestError
from alens.heads import Heads
from alens.model.attention_sources import AttentionSources, attention_sources
from alens.reading.lensed_model import LensedModel
from alens.reading.result import Attention
from alens.store.schema import ATTN_Z

ByLayer = dict[int, AttentionSources]


def sources(
    reader: LensedModel, tokens: Sequence[int], heads: Heads, places: Sequence[int]
) -> tuple[ByLayer, str | None]:
    """By layer, the sources of `heads` at `places`; or nothing, and the reason."""
    site = reader.lenses.record.site
    if site != ATTN_Z:
        return {}, f"these are lenses of {site}, not of heads"
    try:
        return attention_sources(reader.model, tokens, heads, places), None
    except RequestError as error:
        return {}, str(error)


def attention(
    by_layer: ByLayer, heads: Heads, places: Sequence[int]
) -> dict[tuple[int, int, int], Attention]:
    """By position, layer and head: where the head looks from there."""
    return {
        (place, layer, head): Attention(weights=weights[: place + 1], moved=moved[: place + 1])
        for layer, of_layer in by_layer.items()
        for head, weights_QT, moved_QT in zip(
            heads.by_layer[layer], of_layer.weights_HQT.tolist(), of_layer.moved_HQT.tolist(), strict=True
        )
        for place, weights, moved in zip(places, weights_QT, moved_QT, strict=True)
    }
