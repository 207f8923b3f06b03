"""What `alens eval` prints: a line a head, a line a reading, and in how many heads lenses beat each baseline.

In: an `Evaluation`, and which figures to show of each head. Out: rich tables and lines, for 80 columns with the
figures that are shown by default.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alens.lens import marks

if TYPE_CHECKING:
    from rich.table import Table

    from alens.evaluation.reading_figures import ReadingFigures
    from alens.evaluation.result import Evaluation

FIGURES = {
    "kl": ("kl", "KL"),
    "ce": ("cross_entropy", "CE"),
    "bits": ("bits_per_byte", "bits/B"),
    "top1": ("top1_agreement", "top-1"),
    "top10": ("top10_agreement", "top-10"),
    "entropy": ("entropy", "entropy"),
    "ece": ("calibration_error", "ECE"),
}
"""By the name of an option: the field, and its heading."""

SHOWN = "kl,ce,top1,top10"
"""Of each head, unless others are asked for."""

BASELINES = {
    "mean_output": "mean output",
    "unembedding": "unembedding",
    "logit_lens": "Logit Lens of the layer",
    "tuned_lens": "Tuned Lens of the layer",
}
"""By the name that `Evaluation.comparisons` has."""

GAINS = {f"gain-{name.replace('_', '-')}": name for name in BASELINES}
"""By the name of an option: the baseline whose KL, less that of the lens, is the gain."""


def heads(found: "Evaluation", shown: Sequence[str]) -> "Table":
    """A line a head: the chosen figures of its lens with their intervals, and the KL of its unembedding."""
    table = _table("lens of each head" + (", ± half the 95 % interval" if found.groups > 1 else ""))
    table.add_column("head", justify="right")
    for name in shown:
        table.add_column(FIGURES[name][1], justify="right", no_wrap=True)
        if name == "kl" and found.unembedding:
            table.add_column("KL unemb.", justify="right")
    for layer, lenses in found.lens.items():
        for place, (head, lens) in enumerate(zip(found.heads, lenses, strict=True)):
            cells = []
            for name in shown:
                cells.append(_with_interval(lens, FIGURES[name][0]))
                if name == "kl" and found.unembedding:
                    cells.append(_number(found.unembedding[layer][place].kl))
            table.add_row(marks.label(layer, head, found.says_nothing[layer][place]), *cells)
    return table


def readings(found: "Evaluation") -> "Table":
    """A line a reading: all figures of lenses, baselines and the model."""
    table = _table("lenses and baselines")
    table.collapse_padding = True  # seven figures and the longest name fit 80 columns
    table.add_column("", no_wrap=True)
    for _, heading in FIGURES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    ranges = found.ranges()
    for part in ("mean", "lowest", "highest"):
        values = (ranges[field] for field, _ in FIGURES.values())
        table.add_row(f"lens {part}", *(_number(None if of is None else getattr(of, part)) for of in values))
    plain = [of for heads in found.unembedding.values() for of in heads]
    if plain:
        table.add_row("unembedding mean", *(_number(_mean(plain, field)) for field, _ in FIGURES.values()))
    table.add_row("mean output", *_all(found.mean_output))
    for title, layers in (("Logit Lens", found.logit_lens), ("Tuned Lens", found.tuned_lens)):
        for layer, figures in layers.items():
            table.add_row(f"{title} {layer}", *_all(figures))
    if found.model is not None:
        table.add_row("the model", *_all(found.model))
    return table


def lines(found: "Evaluation") -> Iterator[str]:
    """In how many heads the lens has a lower KL than each baseline, and which lenses say nothing."""
    nothing = (
        (layer, head)
        for layer, marked in found.says_nothing.items()
        for head, is_nothing in zip(found.heads, marked, strict=True)
        if is_nothing
    )
    if note := marks.note(nothing):
        yield note
    for baseline in found.comparisons:
        wins = found.wins(baseline)
        yield (
            f"lens better than {BASELINES[baseline]} with intervals apart: {wins.better_apart} of {wins.heads} heads "
            f"(by the paired difference: {wins.surely_better}; lower KL: {wins.better})"
        )


def heading(found: "Evaluation") -> str:
    """What was judged on."""
    from alens.statistics.groups import said

    kind = "held-out rows" if found.trained_on == "no" else "rows, perhaps trained on,"
    left_out = ""
    if found.sequences_left_out:
        left_out = f" ({found.sequences_left_out:,} sequences that were trained on are left out)"
    return (
        f"{found.rows:,} {kind} of {found.sequences:,} sequences{left_out}, {found.teacher} teacher; "
        f"KL, CE and entropy in nats\n{said(found.intervals_over, found.groups)}"
    )


def _table(title: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(title=title, box=SIMPLE, title_justify="left")


def _all(figures: "ReadingFigures") -> list[str]:
    return [_number(getattr(figures, field)) for field, _ in FIGURES.values()]


def _mean(figures: "Sequence[ReadingFigures]", field: str) -> float | None:
    values = [getattr(of, field) for of in figures]
    return None if None in values else sum(values) / len(values)


def _with_interval(figures: "ReadingFigures", field: str) -> str:
    value, interval = getattr(figures, field), figures.intervals[field]
    if value is None or interval is None:
        return _number(value)
    if field == "calibration_error":  # its resamples lie above it: half the interval would say the wrong ends
        return f"{_number(value)} [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{_number(value)} ±{(interval[1] - interval[0]) / 2:.3f}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # -0.000 is 0
