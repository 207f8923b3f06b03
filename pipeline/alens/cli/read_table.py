"""What `alens read` prints: for each position the model's own list, the KL of the mean output, and a table of heads.

In: a `Reading`. Out: lines, and tables with lists of tokens for each head: by its lens, by what it writes, and by its
unembedding.
"""

import math
from collections.abc import Sequence

from alens.cli.console import show
from alens.lens import marks
from alens.pictures.numbers import UNKNOWN, fixed, percent, signed, times
from alens.reading.result import HeadReading, Reading, TermScore, TokenScore, WrittenTerm, WrittenToken
from alens.reading.settings import LIFT, OWN_LIFT, SUPPRESSED_SHOWN, Z_SCORE, Looks, suppression
from alens.store.schema import ATTN_Z

ABOVE = "above the mean output"
"""Marks a KL above that of a reading that looks at nothing."""

SOURCES, LEAST_SOURCE = 3, 0.05
"""Tokens that a head is shown to look at, at most, and the least share of one."""

ORDERS = {
    LIFT: "lift (probability / mean output)",
    OWN_LIFT: "own lift (probability / the lens's own at its mean z)",
    Z_SCORE: "z-score (how many standard deviations the logit is above its mean)",
}

LOOKS = {"weights": "looks at", "moved": "moves from"}

LENS, RAISES, LOWERS, UNEMBEDDING = "lens", "raises", "lowers", "unembedding"
WRITTEN = RAISES, LOWERS
EFFECT = "effect raises", "effect lowers"

MOVED_NOTE = (
    f"{LOOKS['moved']}: places and tokens of the prompt, each with its share of the sizes (norms) of what the head adds to the "
    "residual stream from there."
)

WRITTEN_NOTE = (
    f"{RAISES}, {LOWERS}: what the head writes beside its mean, in logits centred over the vocabulary, at the scale of the "
    f"last norm. {marks.SUPPRESSES}: {suppression()}."
)
"""Says how to read the two columns."""

EFFECT_NOTE = (
    f"{EFFECT[0]}, {EFFECT[1]}: what the head adds to the logits, all in all, as its effect lens says from measured effects "
    "of other text: what would be lost if its z were replaced by its mean."
)


def show_reading(reading: Reading, columns: Sequence[str], looks: Looks) -> None:
    """Print a reading with these columns, such as LENS, *WRITTEN."""
    from alens.cli.tables import console, show_table

    shown = console()
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
        cells = [(head, _cells(head, mean_kl)) for head in reading.heads if head.position == position]
        for head, of_head in cells:
            of_head[LENS] += _sources(head, reading.tokens, looks)
        show_table(
            ("head", *columns),
            [(_name(reading, head), *(of_head[name] for name in columns)) for head, of_head in cells],
            text=columns,
            spaced=True,
        )
    shown.print(_note(reading))
    if RAISES in columns:
        shown.print(WRITTEN_NOTE)
    if EFFECT[0] in columns:
        shown.print(EFFECT_NOTE)
    if looks == "moved" and reading.no_attention is None:
        shown.print(MOVED_NOTE)
    nothing = dict.fromkeys((head.layer, head.head) for head in reading.heads if head.says_nothing)
    if note := marks.note(nothing):
        show(note)


def _cells(head: HeadReading, mean_kl: float | None) -> dict[str, str]:
    """The cell of each column."""
    cells = dict.fromkeys((*WRITTEN, *EFFECT, UNEMBEDDING), "")
    cells[LENS] = _cell(head.lens_kl, mean_kl, head.lens_entropy, head.lens, head.lens_terms)
    if head.says_nothing:
        cells[LENS] = f"{marks.SIGN} {marks.SAYS_NOTHING}\n{cells[LENS]}"
    if head.unembedding_kl is not None and head.unembedding_entropy is not None:
        figures = head.unembedding_kl, mean_kl, head.unembedding_entropy
        cells[UNEMBEDDING] = _cell(*figures, head.unembedding, head.unembedding_terms)
    for (raises, lowers), added, terms in (
        (WRITTEN, head.written, head.written_terms),
        (EFFECT, head.effect, head.effect_terms),
    ):
        if added is not None:
            suppressed = added.suppressed[:SUPPRESSED_SHOWN]
            cells[raises] = _logits(added.raised, [term for term in terms if term.logit >= 0])
            cells[lowers] = _logits(added.lowered, [term for term in terms if term.logit < 0])
            if suppressed:
                cells[lowers] = f"{marks.SUPPRESSES}\n{_logits(suppressed)}\n{LOWERS}\n{cells[lowers]}"
    return cells


def _sources(head: HeadReading, tokens: Sequence[str], looks: Looks) -> str:
    """Lines with the tokens that a head looks at most, or moves most from: place, token, share of all."""
    if head.attention is None or looks == "none":
        return ""
    values = head.attention.weights if looks == "weights" else head.attention.moved
    total = 1.0 if looks == "weights" else sum(values) or 1.0
    places = sorted(range(len(values)), key=lambda place: -values[place])[:SOURCES]
    texts = [
        f"{place} {tokens[place]!r} {percent(values[place] / total)}"
        for place in places
        if values[place] >= LEAST_SOURCE * total
    ]
    if not texts:
        return f"\n{LOOKS[looks]} nothing from {percent(LEAST_SOURCE)} on"
    gap = "\n" + " " * (len(LOOKS[looks]) + 1)
    return f"\n{LOOKS[looks]} {gap.join(texts)}"


def _name(reading: Reading, head: HeadReading) -> str:
    if reading.site == ATTN_Z:
        return marks.label(head.layer, head.head, head.says_nothing)
    return f"{head.layer} {reading.site}"


def _note(reading: Reading) -> str:
    """How to read the lists and the figures."""
    if reading.rank in ORDERS:
        ranked = f"Lists by {ORDERS[reading.rank]}, without tokens below {percent(reading.min_probability)} where enough are above it"
    else:
        ranked = "Lists by probability"
    no_lift = any(score.lift is None for head in reading.heads for score in head.lens)
    lacking = f"; lift and KL {UNKNOWN}: the lenses lack the mean output" if no_lift else ""
    chosen = "; *: --token" if any(reading.model_terms.values()) else ""
    return (
        f"{ranked}{lacking}{chosen}. KL(model, head) and entropy in nats: KL is 0 for the model itself, "
        f"entropy at most ln {reading.vocabulary:,} = {fixed(math.log(reading.vocabulary), 2)}."
    )


def _logits(tokens: Sequence[WrittenToken], terms: Sequence[WrittenTerm] = ()) -> str:
    """Tokens and chosen terms with their logits, one on each line, in columns."""
    rows = [("  ", repr(one.token), signed(one.logit, 2)) for one in tokens]
    rows += [("* ", repr(one.term), signed(one.logit, 2)) for one in terms]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return "\n".join(f"{mark}{token:<{widths[1]}} {logit:>{widths[2]}}" for mark, token, logit in rows)


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
