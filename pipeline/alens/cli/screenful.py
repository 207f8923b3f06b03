"""How much of a long table a command shows by default, and the line that says how to see more.

In: how many there are, and in which order. Out: a line of words. Only the text of commands is cut: `--json` has all.
"""

from collections.abc import Sequence

SCREENFUL = 20
"""Heads that a table shows, unless all are asked for."""


def order_said(order: str, hidden: int, heads: int, *more: str, sort: str, sorts: Sequence[str]) -> str:
    """What heads are sorted by, in words; how many are hidden; `more` that can be seen; and the other orders."""
    others = "|".join(name for name in sorts if name != sort)
    all_heads = [f"{hidden} more of {heads}: --all"] if hidden else []
    return f"Sorted by {order}; {'; '.join((*all_heads, *more, f'other orders: --sort {others}'))}."
