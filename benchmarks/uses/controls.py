"""What chance would give: other heads of the same layers, and intervals over prompts."""

import random
from collections.abc import Sequence

import numpy as np

from alens.heads import Head

from .heads_at_end import Array

RESAMPLES = 2000


def other_heads(first: Sequence[Head], others: Sequence[Head], draw: int) -> list[Head]:
    """As many of `others`, each of the layer of one of `first` where there is one."""
    drawn, chosen = random.Random(draw), list[Head]()
    for layer, _ in first:
        left = [head for head in others if head not in chosen]
        chosen.append(drawn.choice([head for head in left if head[0] == layer] or left))
    return chosen


def interval(values_P: Array) -> tuple[float, float]:
    """95 % of the mean, by drawing prompts or pairs again."""
    drawn_RP = np.random.default_rng(0).integers(len(values_P), size=(RESAMPLES, len(values_P)))
    low, high = np.quantile(values_P[drawn_RP].mean(1), (0.025, 0.975))
    return float(low), float(high)
