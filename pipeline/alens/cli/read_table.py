"""What `alens read` prints: for each position the model's own list, the KL of the mean output, and a table of heads.

In: a `Reading`. Out: lines, and tables with one or two lists of tokens a head.
"""

import math
from collections.abc import Sequence

from alens.cli.console import show
from alens.lens import marks
from alens.pictures.numbers import UNKNOWN, fixed, percent, times
from alens.reading.ranking import LIFT
from alens.reading.result import HeadReading, Reading, TermScore, TokenScore
from alens.store.schema import ATTN_Z

ABOVE = "above the mean output"
"""Marks a KL above that of a reading that looks at nothing."""


def show_reading(reading: Reading, compare: bool) -> None:
    """Print a reading; with `compare`, the unembedding stands beside the lens."""
    from alens.cli.tables import console, show_table

    shown, columns = console(), ("lens", "unembedding") if compare else ("lens",)
    for position in reading.positions:
        mean_kl = reading.mean_output_kl[position]
        own = ", ".join(" ".join(_entry(score)) for score in reading.model[position])
        lines = (
            f"position {position}, after {reading.before[position]!r}",
            f"the model's next token, entropy {fixed(reading.model_entropy[position], 2)} nats: {own}",
            *(f"* {' '.join(_entry(term))}" for term in reading.model_terms[position]),
            f"the mean output, which looks at nothing: KL {fixed(mean_kl, 2)} nats",
            "",
        )
        shown.print("\n".join(lines))
        heads = [head for head in reading.heads if head.position == position]
        show_table(
            ("head", *columns),
            [(_name(reading, head), *_lists(head, mean_kl)[: len(columns)]) for head in heads],
            text=columns,
            spaced=True,
        )
    shown.print(_note(reading))
    nothing = dict.fromkeys((head.layer, head.head) for head in reading.heads if head.says_nothing)
    if note := marks.note(nothing):
        show(note)


def _lists(head: HeadReading, mean_kl: float | None) -> tuple[str, str]:
    """The cells of the lens and of the unembedding."""
    lens = _cell(head.lens_kl, mean_kl, head.lens_entropy, head.lens, head.lens_terms)
    if head.says_nothing:
        lens = f"{marks.SIGN} {marks.SAYS_NOTHING}\n{lens}"
    if head.unembedding_kl is None or head.unembedding_entropy is None:
        return lens, ""
    kl, entropy = head.unembedding_kl, head.unembedding_entropy
    return lens, _cell(kl, mean_kl, entropy, head.unembedding, head.unembedding_terms)


def _name(reading: Reading, head: HeadReading) -> str:
    if reading.site == ATTN_Z:
        return marks.label(head.layer, head.head, head.says_nothing)
    return f"{head.layer} {reading.site}"


def _note(reading: Reading) -> str:
    """How to read the lists and the figures."""
    if reading.rank == LIFT:
        ranked = f"Lists by lift (probability / mean output), without tokens below {percent(reading.min_probability)} where enough are above it"
    else:
        ranked = "Lists by probability"
    no_lift = any(score.lift is None for head in reading.heads for score in head.lens)
    lacking = f"; lift and KL {UNKNOWN}: the lenses lack the mean output" if no_lift else ""
    chosen = "; *: --token" if any(reading.model_terms.values()) else ""
    return (
        f"{ranked}{lacking}{chosen}. KL(model, head) and entropy in nats: KL is 0 for the model itself, "
        f"entropy at most ln {reading.vocabulary:,} = {fixed(math.log(reading.vocabulary), 2)}."
    )


def _cell(
    kl: float,
    mean_kl: float | None,
    entropy: float,
    scores: Sequence[TokenScore],
    terms: Sequence[TermScore],
) -> str:
    """The figures, then the list and the chosen terms, one on each line, in columns."""
    rows = [("  ", *_entry(score)) for score in scores] + [("* ", *_entry(term)) for term in terms]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [
        f"{mark}{token:<{widths[1]}} {share:>{widths[2]}} {lift:>{widths[3]}}".rstrip()
        for mark, token, share, lift in rows
    ]
    above = [ABOVE] if mean_kl is not None and kl > mean_kl else []
    return "\n".join([f"KL {fixed(kl, 2)}, entropy {fixed(entropy, 2)}", *above, *lines])


def _entry(score: TokenScore | TermScore) -> tuple[str, str, str]:
    """Token or term, its probability and its lift."""
    text = score.term if isinstance(score, TermScore) else score.token
    return repr(text), percent(score.probability), times(score.lift)
