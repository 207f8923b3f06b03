"""The best lenses so far, head by head: the optimiser goes on, and its later weights may be worse.

In: the maps of a layer after some step, and which of its heads do better than before. Out: the best maps of every head.
They take as much memory as the weights, on the CPU; a checkpoint holds them.
"""

from collections.abc import Mapping, Sequence

import torch

from alens.lens.lens_forms import FORMS
from alens.lens.maps import LensMaps, Shared

PREFIX = "kept/"


class BestMaps:
    """The best maps of a fit."""

    def __init__(self) -> None:
        self.layers: dict[int, LensMaps] = {}
        """By layer. The maps of heads that were never kept mean nothing."""

    def keep(self, layer: int, heads: Sequence[int], maps: LensMaps) -> None:
        """Keep the maps of these heads, by their places; `maps` has all heads of the layer, and may be kept uncopied."""
        if layer not in self.layers:
            self.layers[layer] = maps.to(torch.device("cpu"))
            return
        for head in heads:  # one at a time, without a second copy of a layer
            self.layers[layer].put([head], maps.select([head]).to(torch.device("cpu")))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that a checkpoint holds, by name."""
        return {
            f"{PREFIX}{layer}/{name}": part
            for layer, maps in self.layers.items()
            for name, part in maps.tensors().items()
        }

    @property
    def form(self) -> str | None:
        return next((maps.form for maps in self.layers.values()), None)

    def restore(self, state: Mapping[str, torch.Tensor], form: str | None, shared: Shared) -> None:
        """Put `tensors()` back."""
        by_layer: dict[int, dict[str, torch.Tensor]] = {}
        for name, part in state.items():
            if name.startswith(PREFIX):
                layer, _, rest = name.removeprefix(PREFIX).partition("/")
                by_layer.setdefault(int(layer), {})[rest] = part
        for number, tensors in by_layer.items():
            assert form is not None, "maps have a form"
            self.layers[number] = FORMS[form].from_tensors(tensors, shared)
