"""The figures of the heads of a layer, out of an evaluation.

In: an `Evaluation`. Out: a `JudgedHead` for each head of a layer.
"""

from alens.atlas.atlas_head import JudgedHead
from alens.evaluation.result import Evaluation


def judged_heads(evaluation: Evaluation, layer: int) -> dict[int, JudgedHead]:
    """By head number."""
    effects, judged = evaluation.effects, {}
    for place, head in enumerate(evaluation.heads.by_layer[layer]):
        readings = {
            name: by_layer[layer][place]
            for name, by_layer in evaluation.of_heads.items()
            if layer in by_layer
        }
        gains = {
            name: by_layer[layer][place].kl
            for name, by_layer in evaluation.comparisons.items()
            if layer in by_layer
        }
        judged[head] = JudgedHead(
            readings=readings | {"mean-output": evaluation.mean_output},
            gains=gains,
            effect=None if effects is None else effects.heads.get((layer, head)),
            by_cause={} if effects is None else effects.figures.get((layer, head), {}),
        )
    return judged
