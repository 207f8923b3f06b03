"""Which rows of the cache the page of a head shows: where it is strongest, and what is usual.

In: a strength for each row. Out: numbers of rows, in groups. The strongest rows alone mislead: they are not what the head
does on most text.
Shapes: N rows.
"""

import torch

STRONGEST = 5
PERCENTILES = (90, 50)
AROUND = 3
"""Rows that are shown at each percentile."""


def strong_rows(strength_N: torch.Tensor) -> list[tuple[str, list[int]]]:
    """The strongest rows, then rows about each of `PERCENTILES`, each row once; titles and numbers of rows."""
    order = strength_N.argsort(descending=True, stable=True).tolist()
    taken: set[int] = set()
    groups = []
    places = [("strongest", range(STRONGEST))]
    for percentile in PERCENTILES:
        middle = round((1 - percentile / 100) * (len(order) - 1))
        first = middle - AROUND // 2
        title = "the median row" if percentile == 50 else f"the {percentile}th percentile"
        places.append((title, range(first, first + AROUND)))
    for title, where in places:
        rows = [order[place] for place in where if 0 <= place < len(order) and order[place] not in taken]
        taken |= set(rows)
        if rows:
            groups.append((title, rows))
    return groups
