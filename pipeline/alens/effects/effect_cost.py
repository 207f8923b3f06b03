"""How long it takes to run a model without each of some heads, from a few passes that are timed.

In: a clean pass, and which heads of which layers are left. Out: seconds. A pass that begins at a layer costs what its
own and the layers above cost, so that two layers tell the others.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alens.model.models import LoadedModel
from alens.model.partial_pass import CleanPass, without_heads


@dataclass(frozen=True, kw_only=True)
class EffectCost:
    """Seconds of one copy of one sequence, by the layer at which the pass begins."""

    copy_s: Mapping[int, float]

    def seconds(self, copies: Mapping[int, int]) -> float:
        """Seconds that so many copies of sequences take, by layer."""
        return sum(self.copy_s[layer] * number for layer, number in copies.items())


def probe(
    model: LoadedModel,
    clean: CleanPass,
    layers: tuple[int, ...],
    means: Mapping[int, torch.Tensor],
    copies: int,
    whole: bool,
) -> EffectCost:
    """Time a pass of so many copies at the lowest and at the highest layer, and what lies between by their number."""
    measured = {}
    for layer in dict.fromkeys((max(layers), min(layers))):
        batch = [(0, place % len(clean.tokens_BT)) for place in range(copies)]
        without_heads(
            model, clean, layer, batch[:1], means[layer], whole=whole
        )  # what only a first pass takes
        since = time.perf_counter()
        float(
            without_heads(model, clean, layer, batch, means[layer], whole=whole).sum()
        )  # waits for the device
        measured[layer] = (time.perf_counter() - since) / copies
    low, high = min(layers), max(layers)
    slope = (measured[high] - measured[low]) / max(1, high - low)
    return EffectCost(copy_s={layer: max(0.0, measured[low] + slope * (layer - low)) for layer in layers})
