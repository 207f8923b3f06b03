"""A short table of HTML, as a notebook shows a result: a line above, and the first rows.

In: a headline, and rows of plain values by name, the most telling first. Out: HTML whose texts are all escaped. Layer and
head become one column, `18.6`; the two ends of an interval become one; tokens of a list stand side by side.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from alens.printable import printable

MOST_ROWS = 10
MOST_COLUMNS = 9
MOST_LISTED = 4
"""Entries of a list that are shown."""
SPACE = "\u2423"
"""A space of a token, as the page of a reading shows it."""
LONGEST = 60
"""Characters of a text in a cell."""

CELL = "text-align:left;vertical-align:top;padding:.15em .6em"


def short_table(headline: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table. Columns without any value are left out, and those past `MOST_COLUMNS`."""
    above = f"<p>{_escaped(headline)}</p>"
    if not rows:
        return f"<div>{above}</div>"
    shown = [_joined(row) for row in rows[:MOST_ROWS]]
    names = [name for name in shown[0] if any(row.get(name) not in (None, "") for row in shown)]
    columns = names[:MOST_COLUMNS]
    left_out = [
        *([f"{len(rows) - len(shown):,} more rows"] if len(rows) > len(shown) else []),
        *([f"{len(names) - len(columns)} more columns"] if len(names) > len(columns) else []),
    ]
    below = f"<p>{' and '.join(left_out)}: to_frame() has all</p>" if left_out else ""
    head = "".join(f'<th scope="col" style="{CELL}">{_escaped(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{row.get(name) or ""}</td>' for name in columns) + "</tr>"
        for row in shown
    )
    return f"<div>{above}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"


def _joined(row: Mapping[str, Any]) -> dict[str, str | None]:
    """The cells of a row as HTML, by heading; None where there is no value."""
    cells: dict[str, str | None] = {}
    for name, value in row.items():
        if name.endswith("layer") and f"{name.removesuffix('layer')}head" in row:
            continue
        if name.endswith("head") and (layer := f"{name.removesuffix('head')}layer") in row:
            cells[name] = f"{row[layer]}.{value}"
        elif name.endswith(".low") and (stem := name.removesuffix(".low")) + ".high" in row:
            high = row[f"{stem}.high"]
            cells[stem] = None if value is None or high is None else f"{_number(value)} to {_number(high)}"
        elif not (name.endswith(".high") and name.removesuffix(".high") + ".low" in row):
            cells[name] = _cell(value)
    return cells


def _cell(value: Any) -> str | None:
    """One value as HTML."""
    if value is None or value is False:
        return None
    if value is True:
        return "yes"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return _escaped(value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}...")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(f"<code>{_escaped(part.replace(' ', SPACE))}</code>" for part in value[:MOST_LISTED])
    return None


def _number(value: float) -> str:
    """Whole numbers with commas; others with four digits, in plain form where they fit."""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.1e}"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
