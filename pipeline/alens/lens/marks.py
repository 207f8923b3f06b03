"""The mark of lenses that say nothing: one sign and one wording for every table, page, picture and card.

In: layer, head, and whether `LensRecord.says_nothing`. Out: text. A lens says nothing when the fit found its held-out KL
no lower than that of the mean output: what it lists on a prompt is then worse than a reader that looks at nothing.
"""

from collections.abc import Iterable

SIGN = "!"
SAYS_NOTHING = "says nothing"
MEANING = "held-out KL not below that of the mean output"

Head = tuple[int, int]
"""(layer, head)."""


def label(layer: int, head: int, says_nothing: bool) -> str:
    """`18.6`, or `18.6!` for a lens that says nothing."""
    return f"{layer}.{head}{SIGN if says_nothing else ''}"


def note(heads: Iterable[Head]) -> str | None:
    """What the sign means, with the heads that have it; None where none has."""
    named = ", ".join(f"{layer}.{head}" for layer, head in heads)
    return f"{SIGN} {SAYS_NOTHING}: {MEANING} ({named})" if named else None
