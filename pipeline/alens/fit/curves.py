"""The held-out losses of a fit so far: the best of each lens, and which are trained no further.

In: losses after some steps, by layer and loss. Out: which of them are the best so far, and how each has ended. Plain
numbers: a checkpoint holds them, and they are the same on every process.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from alens.fit.convergence import HeldOutLoss, best, ending

Loss = tuple[int, int]
"""A layer, and the place of a loss among the layer's: one a head, or one a layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """Why a lens is trained no further."""

    step: int
    why: str
    """`converged`, `rose` or `diverged` (see `convergence.py`)."""


class Curves:
    """Held-out losses, nats: the objective's own, of averaged lenses."""

    def __init__(self) -> None:
        self.mean_output: float | None = None
        """The mean output's loss on the same rows."""
        self.history: dict[Loss, list[HeldOutLoss]] = {}
        self.ended: dict[Loss, Ending] = {}

    def add(self, step: int, losses: Mapping[int, list[float]]) -> set[Loss]:
        """Losses after `step` steps, by layer. Gives those that are the best of theirs so far."""
        improved = set()
        for layer, of_layer in losses.items():
            for unit, loss in enumerate(of_layer):
                key = (layer, unit)
                if key in self.ended:
                    continue
                history = self.history.setdefault(key, [])
                history.append(HeldOutLoss(step=step, kl=loss))
                if (found := best(history)) is not None and found.step == step:
                    improved.add(key)
        return improved

    def best(self, key: Loss) -> HeldOutLoss | None:
        """The best evaluation of a loss; None where there is none."""
        return best(self.history.get(key, ()))

    def ending(self, key: Loss, tolerance: float) -> str | None:
        """How a loss has ended, as its losses say; None while it is to be trained on."""
        assert self.mean_output is not None, "evaluate the mean output first"
        return ending(self.history[key], self.mean_output, tolerance)

    def end(self, key: Loss, step: int, why: str) -> None:
        """It is trained no further."""
        self.ended[key] = Ending(step=step, why=why)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "mean_output": self.mean_output,
            "history": [[*key, [[e.step, e.kl] for e in history]] for key, history in self.history.items()],
            "ended": [[*key, ending.step, ending.why] for key, ending in self.ended.items()],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Curves":
        found = cls()
        found.mean_output = body["mean_output"]
        found.history = {
            (layer, unit): [HeldOutLoss(step=step, kl=kl) for step, kl in history]
            for layer, unit, history in body["history"]
        }
        found.ended = {(layer, unit): Ending(step=step, why=why) for layer, unit, step, why in body["ended"]}
        return found
