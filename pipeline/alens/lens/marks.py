"""The mark of lenses that say nothing, and what a KL is compared with: one wording for tables, pages and cards.

In: layer, head, and whether `LensRecord.says_nothing`. Out: text. A lens says nothing when its held-out KL in the fit was
not below that of the mean output: what it lists for a prompt is then no better than a guess that ignores the prompt.
"""

from collections.abc import Iterable

from alens.heads import Head

SIGN = "!"
SAYS_NOTHING = "says nothing"
KNOWN_SIGN = "~"
SUPPRESSES = "knows, and suppresses"
"""Marks tokens that the lens of a head raises and its write lowers; `KNOWN_SIGN` does so in one line."""
MEANING = "held-out KL not below that of the mean output"


def label(layer: int, head: int, says_nothing: bool) -> str:
    """`18.6`, or `18.6!` for a lens that says nothing."""
    return f"{layer}.{head}{SIGN if says_nothing else ''}"


def note(heads: Iterable[Head], most: int | None = None) -> str | None:
    """What the sign means, with the heads that have it, of many only `most`; None where no head has it."""
    named = [f"{layer}.{head}" for layer, head in heads]
    if most is not None and len(named) > most:
        named[most:] = [f"and {len(named) - most} more"]
    return f"{SIGN} {SAYS_NOTHING}: {MEANING} ({', '.join(named)})" if named else None


def kl_reference(mean_output_kl: float | None, reading: str = "lens") -> tuple[str, ...]:
    """What to compare the KL of a reading on some prompts with, in lines of at most 80 columns."""
    figure = f"KL(model, {reading}) on these prompts, in nats"
    if mean_output_kl is None:
        return (f"{figure}; these lenses lack the mean output",)
    return (f"{figure}; that of the mean output is {mean_output_kl:.2f}", "> above it: worse than no reading")
