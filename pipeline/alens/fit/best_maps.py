"""The best lenses so far, head by head: the optimiser moves on, and may move on for the worse.

In: maps of a layer after some step, and which of its heads do better than before. Out: the maps of every head that was
ever kept. They take the room of the weights once, on the CPU; a checkpoint holds them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from alens.lens.maps import FORMS, LensMaps

PREFIX = "kept/"


class BestMaps:
    """By layer; heads that were never kept are there, and mean nothing."""

    def __init__(self) -> None:
        self.layers: dict[int, LensMaps] = {}

    def keep(self, layer: int, heads: Sequence[int], maps: LensMaps) -> None:
        """`maps` are all of the layer's; these heads are the best so far. They may be kept as they are, not copied."""
        if layer not in self.layers:
            self.layers[layer] = maps.to(torch.device("cpu"))
            return
        for head in heads:  # one at a time: no second copy of a layer
            self.layers[layer].put([head], maps.select([head]).to(torch.device("cpu")))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, by name."""
        return {
            f"{PREFIX}{layer}/{name}": part
            for layer, maps in self.layers.items()
            for name, part in maps.tensors().items()
        }

    @property
    def form(self) -> str | None:
        return next((maps.form for maps in self.layers.values()), None)

    def restore(
        self, state: Mapping[str, torch.Tensor], form: str | None, unembedding: Callable[[], Any]
    ) -> None:
        """Put `tensors()` back."""
        by_layer: dict[int, dict[str, torch.Tensor]] = {}
        for name, part in state.items():
            if name.startswith(PREFIX):
                layer, _, rest = name.removeprefix(PREFIX).partition("/")
                by_layer.setdefault(int(layer), {})[rest] = part
        for number, tensors in by_layer.items():
            assert form is not None, "maps have a form"
            self.layers[number] = FORMS[form].from_tensors(tensors, unembedding)
