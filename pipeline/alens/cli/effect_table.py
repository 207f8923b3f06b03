"""What `alens eval` prints of effects: how each reading agrees with what the model loses without a head.

In: an `Evaluation` of a cache with effects. Out: a table of readings, and one of heads, for 80 columns.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alens.cli.screenful import SCREENFUL
from alens.evaluation.settings import HeadSort
from alens.pictures.numbers import number_of, plus_minus, signed, significant, tenths

if TYPE_CHECKING:
    from alens.cli.tables import Cell
    from alens.evaluation.judged_effects import JudgedEffects

HEADINGS: dict[str, "Cell"] = {
    "correlation": "corr.",
    "explained_variance": "explained",
    "sign_agreement": ("sign,", "> 0.2"),
    "top10_sign_agreement": ("sign,", "top 10"),
}
"""By figure."""

SHORT: dict[str, "Cell"] = {
    "scaled-write": ("scaled", "write"),
    "tuned-composition": ("tuned", "comp."),
    "unembedding": "unemb.",
    "regression": "regr.",
}
"""Headings of readings with long names."""


def show_effects(effects: "JudgedEffects", sort: HeadSort, *, all_heads: bool) -> None:
    """Print which reading to believe: means over heads, then the correlation of each reading for the first heads, by the
    size of their effect or by layer.
    """
    from alens.cli.tables import console, show_table

    readings = effects.readings()
    show_table(
        ("reading", *HEADINGS.values()),
        [(reading, *(_signed(effects.mean(reading, figure)) for figure in HEADINGS)) for reading in readings],
        title=f"readings beside the effect of the head, mean of {number_of(len(effects.figures), 'head')} on {effects.rows:,} rows",
        text=("reading",),
    )

    heads = list(effects.heads)
    if sort != "layer":
        heads.sort(key=lambda head: -effects.heads[head].size)
    shown = heads if all_heads else heads[:SCREENFUL]

    def cells(head: tuple[int, int]) -> Iterator["Cell"]:
        for reading in readings:
            figures = effects.figures[head].get(reading)
            value = None if figures is None else figures.correlation
            ends = None if figures is None else figures.intervals["correlation"]
            yield (
                _signed(value)
                if value is None or ends is None or len(readings) > 4
                else (
                    _signed(value),
                    plus_minus(ends, 2),
                )
            )

    show_table(
        ("head", "effect", ("tokens", "> 0.2"), *(SHORT.get(reading, reading) for reading in readings)),
        [
            (
                f"{head[0]}.{head[1]}",
                significant(effects.heads[head].size),
                tenths(effects.heads[head].changed_tokens),
                *cells(head),
            )
            for head in shown
        ],
        title="correlation with the effect, over tokens and rows; effect: root mean square in logits",
    )
    if len(heads) > len(shown):
        console().print(
            f"The largest effects first; {len(heads) - len(shown)} more of {len(heads)}: --all.\n"
        )


def _signed(value: float | None) -> str:
    return signed(value, 2)
