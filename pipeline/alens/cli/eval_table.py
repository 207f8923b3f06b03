"""What `alens eval` prints and draws: figures of each head and of each reading, and how often lenses beat baselines.

In: an `Evaluation`, and which figures to show. Out: tables and lines, for 80 columns with the figures that are shown by
default, and a grid of heads.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.errors import RequestError
from alens.lens import marks
from alens.pictures.numbers import fixed, interval, plus_minus, significant

if TYPE_CHECKING:
    from alens.cli.tables import Cell
    from alens.evaluation.reading_figures import ReadingFigures
    from alens.evaluation.result import Evaluation
    from alens.pictures.head_grid import HeadGrid

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

TITLES = {
    "kl": "forward KL, model to lens",
    "ce": "cross-entropy of the next token",
    "bits": "cross-entropy of the next token",
    "top1": "top-1 agreement with the model",
    "top10": "top-10 agreement with the model",
    "entropy": "entropy of the lens",
    "ece": "expected calibration error",
}
UNITS = {"kl": "nats", "ce": "nats", "bits": "bits per byte", "entropy": "nats"}

SHOWN = "kl,ce,top1,top10"
"""The figures of each head, unless others are asked for."""

BASELINES = {
    "mean-output": "mean output",
    "unembedding": "unembedding",
    "written": "write",
    "scaled-write": "scaled write",
    "tuned-composition": "tuned composition",
    "regression": "regression",
    "effect": "effect lens",
    "jacobian": "Jacobian lens",
    "logit-lens": "Logit Lens of the layer",
    "tuned-lens": "Tuned Lens of the layer",
    "random": "random directions of the layer",
}
"""By the name that `Evaluation.comparisons` has; further lenses that are none of these go by their design."""

GAINS = {f"gain-{name}": name for name in BASELINES}
"""By the name of an option: the baseline whose KL, less that of the lens, is the gain."""


def show_evaluation(evaluation: "Evaluation", figures: Sequence[str]) -> None:
    """Print what was judged on, a line a head, a line a reading, and how often lenses beat baselines."""
    show(*_heading(evaluation), "")
    _show_heads(evaluation, figures)
    _show_readings(evaluation)
    if evaluation.effects is not None:
        from alens.cli.effect_table import show_effects

        show_effects(evaluation.effects)
    show(*_notes(evaluation))


def head_grid(evaluation: "Evaluation", figure: str) -> "HeadGrid":
    """One figure of every head, or a gain: the KL of a baseline minus that of the lens, above 0 where the lens is
    better.

    Gains are marked where the two intervals lie apart. Raises `RequestError` for a baseline that was not judged.
    """
    from alens.pictures.head_grid import HeadGrid

    places = {
        (layer, head): index
        for layer, numbers in evaluation.heads.by_layer.items()
        for index, head in enumerate(numbers)
    }
    silent = {(layer, head) for (layer, head), i in places.items() if evaluation.says_nothing[layer][i]}
    rows = f"{evaluation.rows:,} held-out rows"
    if figure in GAINS:
        baseline = BASELINES[GAINS[figure]]
        if GAINS[figure] not in evaluation.comparisons:
            raise RequestError(f"there is no {baseline} to compare with here")
        compared = evaluation.comparisons[GAINS[figure]]
        differences = {(layer, head): compared[layer][i].kl for (layer, head), i in places.items()}
        title = f"gain over the {baseline}, KL"
        return HeadGrid(
            title=f"{title}; {rows}",
            values={place: -one.difference for place, one in differences.items()},
            number_title=f"{title} (nats)",
            centre=0.0,
            marked={place for place, one in differences.items() if one.better_apart},
            mark_title="better, 95 % intervals apart",
            silent=silent,
        )
    field, title = FIGURES[figure][0], TITLES[figure]
    mean_output = getattr(evaluation.mean_output, field)
    beside = "" if mean_output is None else f"; mean output {significant(mean_output)}"
    return HeadGrid(
        title=f"{title}; {rows}{beside}",
        values={
            (layer, head): getattr(evaluation.lens[layer][i], field) for (layer, head), i in places.items()
        },
        number_title=f"{title} ({UNITS[figure]})" if figure in UNITS else title,
        silent=silent,
    )


def _heading(evaluation: "Evaluation") -> Iterator[str]:
    """What was judged on."""
    from alens.statistics.groups import said

    kind = "held-out rows" if evaluation.trained_on == "no" else "rows, perhaps trained on,"
    left_out = ""
    if evaluation.sequences_left_out:
        left_out = f" ({evaluation.sequences_left_out:,} sequences that were trained on are left out)"
    yield (
        f"{evaluation.rows:,} {kind} of {evaluation.sequences:,} sequences{left_out}, {evaluation.teacher} teacher; "
        "KL, CE and entropy in nats"
    )
    yield said(evaluation.intervals_over, evaluation.groups)


def _show_heads(evaluation: "Evaluation", figures: Sequence[str]) -> None:
    """A line a head: the chosen figures of its lens with their intervals, and the KL of its unembedding."""
    from alens.cli.tables import show_table

    def cells(layer: int, index: int) -> "Iterator[Cell]":
        for name in figures:
            yield _with_interval(evaluation.lens[layer][index], FIGURES[name][0])
            if name == "kl" and evaluation.unembedding:
                yield fixed(evaluation.unembedding[layer][index].kl)

    headings: list[Cell] = ["head"]
    for name in figures:
        headings.append(FIGURES[name][1])
        if name == "kl" and evaluation.unembedding:
            headings.append(("KL", "unemb."))
    show_table(
        headings,
        [
            (marks.label(layer, head, evaluation.says_nothing[layer][index]), *cells(layer, index))
            for layer, numbers in evaluation.heads.by_layer.items()
            for index, head in enumerate(numbers)
        ],
        title="lens of each head" + (", ± half the 95 % interval" if evaluation.groups > 1 else ""),
    )


def _show_readings(evaluation: "Evaluation") -> None:
    """A line a reading: all figures of lenses, baselines and the model."""
    from alens.cli.tables import show_table

    fields = [field for field, _ in FIGURES.values()]

    def line(name: str, figures: "ReadingFigures") -> list[str]:
        return [name, *(fixed(getattr(figures, field)) for field in fields)]

    ranges = evaluation.ranges()
    lines = [
        [f"lens {part}", *(fixed(getattr(ranges[field], part, None)) for field in fields)]
        for part in ("mean", "lowest", "highest")
    ]
    for reading, by_layer in evaluation.of_heads.items():
        if reading != "lens":
            all_heads = [figures for heads in by_layer.values() for figures in heads]
            title = f"{BASELINES.get(reading, reading)} mean"
            lines.append([title, *(fixed(_mean(all_heads, field)) for field in fields)])
    lines.append(line("mean output", evaluation.mean_output))
    for reading, layers in evaluation.of_layers.items():
        title = BASELINES[reading].removesuffix(" of the layer")
        lines += [line(f"{title} {layer}", figures) for layer, figures in layers.items()]
    if evaluation.model is not None:
        lines.append(line("the model", evaluation.model))
    headings = [heading for _, heading in FIGURES.values()]
    show_table(("reading", *headings), lines, title="lenses and baselines", text=("reading",))


def _notes(evaluation: "Evaluation") -> Iterator[str]:
    """Which lenses say nothing, and in how many heads the lens has a lower KL than each baseline."""
    nothing = (
        (layer, head)
        for layer, marked in evaluation.says_nothing.items()
        for head, is_nothing in zip(evaluation.heads.by_layer[layer], marked, strict=True)
        if is_nothing
    )
    if note := marks.note(nothing):
        yield note
    for baseline in evaluation.comparisons:
        wins = evaluation.wins(baseline)
        yield (
            f"lens better than {BASELINES.get(baseline, baseline)} with intervals apart: {wins.better_apart} of {wins.heads} heads "
            f"(by the paired difference: {wins.surely_better}; lower KL: {wins.better})"
        )


def _mean(figures: "Sequence[ReadingFigures]", field: str) -> float | None:
    values = [getattr(one, field) for one in figures]
    return None if None in values else sum(values) / len(values)


def _with_interval(figures: "ReadingFigures", field: str) -> "Cell":
    """A figure and its interval."""
    value, ends = getattr(figures, field), figures.intervals[field]
    if value is None or ends is None:
        return fixed(value)
    if field == "calibration_error":  # its resamples lie above it: half the interval would say the wrong ends
        return fixed(value), f"({interval(ends)})"
    return fixed(value), plus_minus(ends)
