"""A `Reading` as text: for each position the model's own list, the mean output's KL, and a table of heads with one or
two lists."""

import math
from collections.abc import Sequence

from alens.lens import marks
from alens.reading.ranking import LIFT
from alens.reading.result import HeadReading, Reading, TermScore, TokenScore
from alens.store.schema import ATTN_Z

UNKNOWN = "-"
"""A lift, or a KL of the mean output, that cannot be given."""
ABOVE = "above the mean output"
"""Marks a KL above that of a reader that looks at nothing."""


def show(reading: Reading, compare: bool) -> None:
    """Print it; `compare` says whether the unembedding stands beside the lens."""
    from rich.box import SIMPLE
    from rich.table import Table

    from alens.cli import tables

    console = tables.console()
    for position in reading.positions:
        console.print(f"\nposition {position}, after {reading.before[position]!r}")
        own = ", ".join(" ".join(entry) for entry in map(_entry, reading.model[position]))
        console.print(f"the model's next token, entropy {reading.model_entropy[position]:.2f} nats: {own}")
        for term in reading.model_terms[position]:
            console.print(f"* {' '.join(_entry(term))}")
        mean_kl = reading.mean_output_kl[position]
        console.print(f"the mean output, which looks at nothing: KL {_nats(mean_kl)} nats")
        table = Table("head", "lens", *(["unembedding"] if compare else []), box=SIMPLE, show_lines=True)
        for head in (head for head in reading.heads if head.position == position):
            cells = [_cell(head.lens_kl, mean_kl, head.lens_entropy, head.lens, head.lens_terms)]
            if head.says_nothing:
                cells = [f"{marks.SIGN} {marks.SAYS_NOTHING}\n{cells[0]}"]
            if compare and head.unembedding_kl is not None and head.unembedding_entropy is not None:
                plain = head.unembedding, head.unembedding_terms
                cells.append(_cell(head.unembedding_kl, mean_kl, head.unembedding_entropy, *plain))
            table.add_row(_name(reading, head), *cells)
        console.print(table)
    console.print(_note(reading), style="dim")
    nothing = dict.fromkeys((head.layer, head.head) for head in reading.heads if head.says_nothing)
    if note := marks.note(nothing):
        console.print(note)


def _name(reading: Reading, head: HeadReading) -> str:
    if reading.site == ATTN_Z:
        return marks.label(head.layer, head.head, head.says_nothing)
    return f"{head.layer} {reading.site}"


def _note(reading: Reading) -> str:
    """What stands in the lists."""
    if reading.rank == LIFT:
        ranked = f"Lists by lift (probability / mean output), without tokens below {_percent(reading.min_probability)} where enough are above it"
    else:
        ranked = "Lists by probability"
    no_lift = any(score.lift is None for head in reading.heads for score in head.lens)
    lacking = f"; lift and KL {UNKNOWN}: the lenses do not say the mean output" if no_lift else ""
    chosen = "; *: --token" if any(reading.model_terms.values()) else ""
    return (
        f"{ranked}{lacking}{chosen}. KL(model, head) and entropy in nats: KL is 0 for the model itself, "
        f"entropy at most ln {reading.vocabulary:,} = {math.log(reading.vocabulary):.2f}."
    )


def _cell(
    kl: float,
    mean_kl: float | None,
    entropy: float,
    scores: Sequence[TokenScore],
    terms: Sequence[TermScore],
) -> str:
    """The figures, the list and the chosen terms, one a line, in columns."""
    rows = [("  ", *_entry(score)) for score in scores] + [("* ", *_entry(term)) for term in terms]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [
        f"{mark}{token:<{widths[1]}} {share:>{widths[2]}} {lift:>{widths[3]}}".rstrip()
        for mark, token, share, lift in rows
    ]
    above = [ABOVE] if mean_kl is not None and kl > mean_kl else []
    return "\n".join([f"KL {kl:.2f}, entropy {entropy:.2f}", *above, *lines])


def _entry(score: TokenScore | TermScore) -> tuple[str, str, str]:
    """Token or term, probability, lift."""
    text = score.term if isinstance(score, TermScore) else score.token
    return repr(text), _percent(score.probability), _times(score.lift)


def _nats(kl: float | None) -> str:
    return UNKNOWN if kl is None else f"{kl:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else f"{100 * share:.2g}%"


def _times(lift: float | None) -> str:
    if lift is None:
        return UNKNOWN
    if lift >= 10:
        return f"{float(f'{lift:.3g}'):,.0f}x"
    return f"{lift:.1f}x" if lift >= 0.1 else f"{lift:.2g}x"
