"""What is said of an evaluation: a line of the log for each layer, and one of `log.jsonl`.

In: a `Trainer` after its evaluation. Out: `log.jsonl` in the lens directory, a JSON object a line.
"""

import json
import logging
import math
from collections.abc import Mapping
from typing import Protocol

from alens.fit.convergence import ENDINGS
from alens.fit.curves import Curves
from alens.fit.recipe import Recipe
from alens.lens.directory import LensDirectory
from alens.store.durable import write_errors

log = logging.getLogger("alens")


class Evaluated(Protocol):
    """What is read of a `Trainer`."""

    recipe: Recipe
    directory: LensDirectory
    curves: Curves
    step_number: int

    @property
    def best_steps(self) -> dict[str, int]: ...
    def names(self, layer: int, unit: int) -> list[str]: ...
    def alone(self, layer: int) -> bool: ...
    def ended(self, why: str) -> dict[str, int]: ...


def put_line(trainer: Evaluated, losses: Mapping[int, list[float]], seconds: float) -> None:
    """Tell of held-out losses, by layer, after so many seconds of steps. Raises `RunError` when the disk refuses."""
    curves, step = trainer.curves, trainer.step_number
    for layer, of_layer in losses.items():
        said = [
            f"{trainer.names(layer, unit)[0] if trainer.alone(layer) else 'all heads'} {loss:.3f}"
            for unit, loss in enumerate(of_layer)
        ]
        done = sum(ended == layer for ended, _ in curves.ended)
        log.info(
            "step %d layer %d held-out loss: %s (mean output %.3f%s)", step, layer, ", ".join(said),
            curves.mean_output, f"; {done} of {len(of_layer)} are trained no further" if done else "",
        )  # fmt: skip
    line = {
        "step": step,
        "rows": step * trainer.recipe.settings.batch_rows,
        "seconds": round(seconds, 3),
        "heads": list(trainer.recipe.heads),
        "mean_output_loss": None if curves.mean_output is None else round(curves.mean_output, 5),
        "held_out_loss": {
            str(layer): [round(x, 5) if math.isfinite(x) else None for x in of_layer]
            for layer, of_layer in losses.items()
        },
        "best_step": trainer.best_steps,
        **{why: list(trainer.ended(why)) for why in ENDINGS},
    }
    with write_errors(trainer.directory.root), trainer.directory.log.open("a") as file:
        file.write(json.dumps(line) + "\n")
