"""What the log says about an evaluation: a line for each layer, and a line of `log.jsonl`.

In: the held-out losses after some steps, and the curves they were added to. Out: `log.jsonl` in the lens directory, a
JSON object a line.
"""

import json
import logging
import math
from collections.abc import Mapping

from alens.fit.convergence import ENDINGS
from alens.fit.curves import Curves
from alens.lens.directory import LensDirectory
from alens.store.durable import write_errors

log = logging.getLogger("alens")


def put_evaluation(
    directory: LensDirectory,
    curves: Curves,
    losses: Mapping[int, list[float]],
    *,
    step: int,
    rows: int,
    seconds: float,
) -> None:
    """Log the held-out losses, by layer, with the numbers of steps, rows and seconds so far.

    Raises `RunError` when the disk refuses.
    """
    for layer, layer_losses in losses.items():
        named = curves.one_loss_a_head(layer)
        each = [
            f"{curves.names((layer, unit))[0] if named else 'all heads'} {loss:.3f}"
            for unit, loss in enumerate(layer_losses)
        ]
        ended = sum(ended_layer == layer for ended_layer, _ in curves.ended)
        log.info(
            "step %d layer %d held-out loss: %s (mean output %.3f%s)", step, layer, ", ".join(each),
            curves.mean_output, f"; {ended} of {len(layer_losses)} are trained no further" if ended else "",
        )  # fmt: skip
    line = {
        "step": step,
        "rows": rows,
        "seconds": round(seconds, 3),
        "heads": curves.heads.as_json,
        "mean_output_loss": None if curves.mean_output is None else round(curves.mean_output, 5),
        "held_out_loss": {
            str(layer): [round(loss, 5) if math.isfinite(loss) else None for loss in layer_losses]
            for layer, layer_losses in losses.items()
        },
        "best_step": curves.best_steps,
        **{why: list(curves.ended_steps(why)) for why in ENDINGS},
    }
    with write_errors(directory.root), directory.log.open("a") as file:
        file.write(json.dumps(line) + "\n")
