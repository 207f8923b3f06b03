"""The held-out losses of all lenses of a fit so far: the best of each, and which lenses are trained no further.

In: losses after some steps, by layer and loss. Out: which of them are the best so far, and how each has ended. Plain
numbers: a checkpoint holds them, and they are the same on every process.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from alens.fit.convergence import TOLERANCE, HeldOutLoss, best, doublings_left, ending
from alens.heads import Heads

Loss = tuple[int, int]
"""A layer, and the number of a loss among those of the layer: one for each head, or one for the layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """Why a lens is trained no further."""

    step: int
    why: str
    """`converged`, `rose` or `diverged` (see `convergence.py`)."""


class Curves:
    """Held-out losses in nats: the objective's own, of averaged lenses."""

    def __init__(self, heads: Heads, num_losses: Mapping[int, int]) -> None:
        """`heads` have lenses, `num_losses` says how many losses each layer has."""
        self.heads, self.num_losses = heads, dict(num_losses)
        self.mean_output: float | None = None
        """The loss of the mean output on the same rows."""
        self.history: dict[Loss, list[HeldOutLoss]] = {}
        self.ended: dict[Loss, Ending] = {}

    def add(self, step: int, losses: Mapping[int, list[float]]) -> set[Loss]:
        """Add the losses after `step` steps, by layer; gives the losses that are at their best so far."""
        improved = set()
        for layer, layer_losses in losses.items():
            for unit, loss in enumerate(layer_losses):
                key = (layer, unit)
                if key in self.ended:
                    continue
                self.history.setdefault(key, []).append(HeldOutLoss(step=step, loss=loss))
                lowest = self.best(key)
                if lowest is not None and lowest.step == step:
                    improved.add(key)
        return improved

    def best(self, key: Loss) -> HeldOutLoss | None:
        """The best evaluation of a loss; None where there is none."""
        return best(self.history.get(key, ()))

    # Which lenses are trained

    def end(self, key: Loss, step: int, why: str) -> None:
        """The lenses of this loss are trained no further."""
        self.ended[key] = Ending(step=step, why=why)

    def ending(self, key: Loss, tolerance: float) -> str | None:
        """How a loss has ended, judged by its curve; None while its lenses are to be trained on."""
        assert self.mean_output is not None, "evaluate the mean output first"
        return ending(self.history[key], self.mean_output, tolerance)

    @property
    def keys(self) -> list[Loss]:
        """All losses of the fit."""
        return [(layer, unit) for layer, count in self.num_losses.items() for unit in range(count)]

    @property
    def trained(self) -> list[Loss]:
        """The losses whose lenses are still trained."""
        return [key for key in self.keys if key not in self.ended]

    def trained_units(self) -> dict[int, list[int]]:
        """The same by layer."""
        units: dict[int, list[int]] = {layer: [] for layer in self.num_losses}
        for layer, unit in self.trained:
            units[layer].append(unit)
        return units

    # Losses and heads

    def one_loss_a_head(self, layer: int) -> bool:
        """Whether each head of the layer has a loss of its own."""
        return self.num_losses[layer] == len(self.heads.by_layer[layer])

    def places(self, layer: int, units: Iterable[int]) -> list[int]:
        """The heads that these losses train, by their places among those of the layer: one each, or all that share a loss."""
        units = list(units)
        if self.one_loss_a_head(layer):
            return units
        return list(range(len(self.heads.by_layer[layer]))) if units else []

    def names(self, key: Loss) -> list[str]:
        """The names of the lenses with this loss: `18.6` is head 6 of layer 18."""
        layer, unit = key
        return [f"{layer}.{self.heads.by_layer[layer][place]}" for place in self.places(layer, [unit])]

    def ended_steps(self, why: str) -> dict[str, int]:
        """By name of a lens, the step after which it ended for that reason."""
        return {
            name: ending.step
            for key, ending in sorted(self.ended.items())
            if ending.why == why
            for name in self.names(key)
        }

    def rows_wanted(self, rows: int, tolerance: float) -> dict[str, int]:
        """By name of a lens that would gain from more than the `rows` it was trained on: about how many it wants."""
        wanted: dict[str, int] = {}
        for key, history in sorted(self.history.items()):
            assert self.mean_output is not None, "it was evaluated before any lens"
            if doublings := doublings_left(history, self.mean_output, tolerance or TOLERANCE):
                wanted |= dict.fromkeys(self.names(key), rows * 2**doublings)
        return wanted

    @property
    def best_steps(self) -> dict[str, int]:
        """By name of a lens, the step of the evaluation that is kept."""
        return {
            name: lowest.step
            for key in sorted(self.history)
            if (lowest := self.best(key)) is not None
            for name in self.names(key)
        }

    # Checkpoints

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint holds: plain JSON values."""
        return {
            "mean_output": self.mean_output,
            "history": [
                [*key, [[point.step, point.loss] for point in history]]
                for key, history in self.history.items()
            ],
            "ended": [[*key, ending.step, ending.why] for key, ending in self.ended.items()],
        }

    def restore(self, body: Mapping[str, Any]) -> None:
        """Put `to_json()` back. Raises `ValueError` for the curves of other lenses."""
        self.mean_output = body["mean_output"]
        self.history = {
            (layer, unit): [HeldOutLoss(step=step, loss=loss) for step, loss in history]
            for layer, unit, history in body["history"]
        }
        self.ended = {(layer, unit): Ending(step=step, why=why) for layer, unit, step, why in body["ended"]}
        known, keys = self.history.keys() | self.ended.keys(), set(self.keys)
        if not known <= keys or (self.history and known != keys):
            raise ValueError("the curves are of other lenses")
