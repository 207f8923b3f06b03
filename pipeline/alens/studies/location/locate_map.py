"""Where the terms are raised, as a grid: layers down, heads across, significant heads marked.

In: a `Location`. Out: a `HeatMap` of its effects, to be written as PNG or HTML.
"""

import numpy as np

from alens.pictures.heat_map import HeatMap
from alens.studies.location.result import Location

TERMS_NAMED = 4


def effect_map(found: Location) -> HeatMap:
    """The effects by the lenses, in nats."""
    layers = sorted({head.layer for head in found.heads})
    heads = sorted({head.head for head in found.heads})
    values = np.full((len(layers), len(heads)), np.nan)
    marks, nothing = (np.zeros(values.shape, dtype=np.bool_) for _ in range(2))
    for head in found.heads:
        at = layers.index(head.layer), heads.index(head.head)
        values[at], marks[at], nothing[at] = head.lens.effect, head.significant, head.says_nothing
    settings = found.settings
    named = ", ".join(found.terms[:TERMS_NAMED]) + (", ..." if len(found.terms) > TERMS_NAMED else "")
    against = "the mean output" if found.controls is None else f"{found.controls} controls"
    return HeatMap(
        title=f"{named}: {found.prompts} prompts against {against}",
        values=values,
        rows=[str(layer) for layer in layers],
        columns=[str(head) for head in heads] if found.on_heads else [found.site],
        row_title="layer",
        column_title="head" if found.on_heads else "site",
        colour_title="effect, nats",
        centre=0.0,
        marks=marks,
        nothing=nothing,
        mark_title=f"p {settings.correction} <= {settings.alpha:g}",
    )
