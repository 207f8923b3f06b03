"""`alens eval --heat-map`: one figure of every head, as a grid of layers and heads.

In: an `Evaluation` and the name of a figure. Out: a `HeatMap`. A gain is the KL of a baseline less that of the lens:
above 0 the lens is better, and a mark says that the intervals of the two lie apart.
"""

import numpy as np

from alens.cli.eval_table import BASELINES, FIGURES, GAINS
from alens.errors import RequestError
from alens.evaluation.result import Evaluation
from alens.pictures.heat_map import HeatMap

UNITS = {"kl": "nats", "ce": "nats", "bits": "bits a byte", "entropy": "nats"}
TITLES = {
    "kl": "forward KL, model to lens",
    "ce": "cross-entropy of the next token",
    "bits": "cross-entropy of the next token",
    "top1": "top-1 agreement with the model",
    "top10": "top-10 agreement with the model",
    "entropy": "entropy of the lens",
    "ece": "expected calibration error",
}


def _beside(found: Evaluation, of: str) -> str:
    """What the mean output has of the same figure, which no lens should be worse than."""
    value = None if of in GAINS else getattr(found.mean_output, FIGURES[of][0])
    return "" if value is None else f"; mean output {value:.3g}"


def heat_map(found: Evaluation, of: str) -> HeatMap:
    """Raises `RequestError` for a figure or a baseline that was not judged."""
    values_LH = np.full((len(found.lens), len(found.heads)), np.nan)
    marks_LH = np.zeros(values_LH.shape, dtype=bool)
    if of in GAINS and GAINS[of] not in found.comparisons:
        raise RequestError(f"there is no {BASELINES[GAINS[of]]} to compare with here")
    for row, layer in enumerate(found.lens):
        for column in range(len(found.heads)):
            if of in GAINS:
                compared = found.comparisons[GAINS[of]][layer][column].kl
                values_LH[row, column], marks_LH[row, column] = -compared.difference, compared.better_apart
            else:
                value = getattr(found.lens[layer][column], FIGURES[of][0])
                values_LH[row, column] = np.nan if value is None else value
    gain = of in GAINS
    title = f"gain over the {BASELINES[GAINS[of]]}, KL" if gain else TITLES[of]
    unit = "nats" if gain else UNITS.get(of)
    return HeatMap(
        title=f"{title}; {found.rows:,} held-out rows{_beside(found, of)}",
        values=values_LH,
        rows=[str(layer) for layer in found.lens],
        columns=[str(head) for head in found.heads],
        row_title="layer",
        column_title="head",
        colour_title=f"{title} ({unit})" if unit else title,
        centre=0.0 if gain else None,
        marks=marks_LH if gain else None,
        mark_title="better, 95 % intervals apart" if gain else "",
        nothing=np.array(list(found.says_nothing.values()), dtype=np.bool_),
    )
