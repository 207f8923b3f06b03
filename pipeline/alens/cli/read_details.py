"""The lists of each head that `alens read` prints: by its lens, by what it writes, by its effect, by its unembedding.

In: a `Reading`, and some of its heads. Out: a table, as many columns side by side as the terminal has room for.
"""

import math
from collections.abc import Iterator, Sequence

from alens.lens import marks
from alens.pictures.numbers import UNKNOWN, fixed, percent, signed, times
from alens.printable import quoted
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
    "of other text, or its Jacobian lens to first order: what would be lost if its z were replaced by its mean."
)


def show_details(
    reading: Reading, heads: Sequence[HeadReading], columns: Sequence[str], looks: Looks
) -> None:
    """Print the lists of some heads of one position, in these columns, such as LENS, *WRITTEN."""
    from alens.cli.tables import show_table

    names, lines = [], []
    for head in heads:
        cells = _cells(head, reading.mean_output_kl[head.position], reading.rank)
        cells[LENS] += _sources(head, reading.tokens, looks)
        names.append(name(reading, head))
        lines.append(cells)
    groups = _side_by_side(names, lines, columns)
    show_table(
        ("head", *groups),
        [
            (of_head, *(_stacked(cells, parts) for parts in groups.values()))
            for of_head, cells in zip(names, lines, strict=True)
        ],
        text=list(groups),
        spaced=True,
    )


def notes(reading: Reading, columns: Sequence[str], looks: Looks) -> Iterator[str]:
    """How to read the lists."""
    yield _note(reading)
    if RAISES in columns:
        yield WRITTEN_NOTE
    if EFFECT[0] in columns:
        yield EFFECT_NOTE
    if looks == "moved" and reading.no_attention is None:
        yield MOVED_NOTE


def _side_by_side(
    names: Sequence[str], lines: Sequence[dict[str, str]], columns: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """By heading, the lists of a column: each its own where the terminal is wide enough, else one below the other."""
    from alens.cli.tables import fits

    pairs = [pair for pair in (WRITTEN, EFFECT) if pair[0] in columns]
    alone = [one for one in columns if one not in (*WRITTEN, *EFFECT)]
    beside = tuple(one for one in columns if one != LENS)
    layouts: list[dict[str, tuple[str, ...]]] = [{one: (one,) for one in columns}]
    if pairs:
        in_pairs = {", ".join(pair): pair for pair in pairs}
        layouts.append({LENS: (LENS,), **in_pairs, **{one: (one,) for one in alone if one != LENS}})
        layouts.append({LENS: (LENS,), "beside it": beside})
    if beside:
        layouts.append({"lists": tuple(columns)})
    for groups in layouts:
        cells = [
            [of_head, *(_stacked(one, parts) for parts in groups.values())]
            for of_head, one in zip(names, lines, strict=True)
        ]
        if fits([["head", *groups], *cells]):
            return groups
    return layouts[-1]


def _stacked(cells: dict[str, str], parts: Sequence[str]) -> str:
    """The lists of a column, each below its name where there are several."""
    if len(parts) == 1:
        return cells[parts[0]]
    return "\n".join(f"{part}\n{cells[part]}" for part in parts if cells[part])


def _cells(head: HeadReading, mean_kl: float | None, rank: str) -> dict[str, str]:
    """The cell of each column."""
    cells = dict.fromkeys((*WRITTEN, *EFFECT, UNEMBEDDING), "")
    figures = head.lens_kl, mean_kl, head.lens_entropy
    cells[LENS] = _cell(*figures, head.lens, head.lens_terms, rank)
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
        f"{place} {quoted(tokens[place])} {percent(values[place] / total)}"
        for place in places
        if values[place] >= LEAST_SOURCE * total
    ]
    if not texts:
        return f"\n{LOOKS[looks]} nothing from {percent(LEAST_SOURCE)} on"
    gap = "\n" + " " * (len(LOOKS[looks]) + 1)
    return f"\n{LOOKS[looks]} {gap.join(texts)}"


def name(reading: Reading, head: HeadReading) -> str:
    """`18.6`, with the mark of a lens that says nothing; the site, where lenses do not read heads."""
    if reading.site == ATTN_Z:
        return marks.label(head.layer, head.head, head.says_nothing)
    return f"{head.layer} {reading.site}"


def _note(reading: Reading) -> str:
    """How to read the lists and the figures."""
    if reading.rank in ORDERS:
        last = "" if reading.rank == LIFT else ", in the last column"
        ranked = f"Lists by {ORDERS[reading.rank]}{last}, without tokens below {percent(reading.min_probability)} where enough are above it"
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
    rows = [("  ", quoted(one.token), signed(one.logit, 2)) for one in tokens]
    rows += [("* ", quoted(one.term), signed(one.logit, 2)) for one in terms]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return "\n".join(f"{mark}{token:<{widths[1]}} {logit:>{widths[2]}}" for mark, token, logit in rows)


def _cell(
    kl: float,
    mean_kl: float | None,
    entropy: float,
    scores: Sequence[TokenScore],
    terms: Sequence[TermScore],
    rank: str = LIFT,
) -> str:
    """The figures, then the list and the chosen terms, one on each line, in columns; last what a list is ordered by."""
    rows = [("  ", *entry(score), _order(score.score, rank)) for score in scores]
    rows += [("* ", *entry(term), "") for term in terms]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    lines = [
        f"{mark}{token:<{widths[1]}} {share:>{widths[2]}} {lift:>{widths[3]}} {order:>{widths[4]}}".rstrip()
        for mark, token, share, lift, order in rows
    ]
    above = [ABOVE] if mean_kl is not None and kl > mean_kl else []
    return "\n".join([f"KL {fixed(kl, 2)}, entropy {fixed(entropy, 2)}", *above, *lines])


def _order(score: float | None, rank: str) -> str:
    """A z-score, or an own lift; nothing where lists are ordered by what stands there already."""
    if score is None:
        return ""
    return times(score) if rank == OWN_LIFT else f"z {signed(score, 1)}"


def entry(score: TokenScore | TermScore) -> tuple[str, str, str]:
    """A token or term, its probability and its lift."""
    text = score.term if isinstance(score, TermScore) else score.token
    return quoted(text), percent(score.probability), times(score.lift)
