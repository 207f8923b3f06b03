"""What `alens eval` prints and draws: figures of each head and of each reading, and how often lenses beat baselines.

In: an `Evaluation`, and which figures to show. Out: tables and lines, for 80 columns with the figures that are shown by
default, and a grid of heads.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, get_args

from alens.cli.screenful import SCREENFUL, order_said
from alens.errors import RequestError
from alens.evaluation.settings import HeadSort
from alens.heads import Head
from alens.lens import marks
from alens.pictures.numbers import fixed, interval, number_of, plus_minus, signed, significant

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

NAMED, FEW_LAYERS = 12, 6
"""Heads that a note names, and layers that have a line each, unless all are asked for."""

SORTED: dict[HeadSort, str] = {
    "gain": "the gain over the mean output",
    "kl": "KL, the lowest first",
    "effect": "the size of the effect",
    "layer": "layer and head",
}
"""What heads are sorted by, in words."""

GAINS = {f"gain-{name}": name for name in BASELINES}
"""By the name of an option: the baseline whose KL, less that of the lens, is the gain."""


def show_evaluation(
    evaluation: "Evaluation", figures: Sequence[str], *, sort: HeadSort | None = None, all_heads: bool = False
) -> None:
    """Print what was judged on, how many lenses beat which baselines, a line a reading, and a line for the first heads."""
    from alens.cli.tables import console

    shown = console()
    shown.print("\n".join((*_heading(evaluation), *_summary(evaluation), "")))
    _show_readings(evaluation, all_heads=all_heads)
    _show_wins(evaluation)
    _show_heads(evaluation, figures, "gain" if sort is None else sort, all_heads=all_heads)
    if evaluation.effects is not None:
        from alens.cli.effect_table import show_effects

        shown.print()
        show_effects(evaluation.effects, "effect" if sort is None else sort, all_heads=all_heads)
    nothing = [
        (layer, head)
        for (layer, head), (of_layer, index) in places(evaluation).items()
        if evaluation.says_nothing[of_layer][index]
    ]
    if note := marks.note(nothing, NAMED):
        shown.print(note)


def places(evaluation: "Evaluation") -> dict[Head, tuple[int, int]]:
    """By head, its layer and its place in the lists of that layer."""
    return {
        (layer, head): (layer, index)
        for layer, numbers in evaluation.heads.by_layer.items()
        for index, head in enumerate(numbers)
    }


def in_order(evaluation: "Evaluation", sort: HeadSort) -> list[Head]:
    """All heads, the first ones first; those without a measured effect come last where this is asked for."""
    there = places(evaluation)
    effects = {} if evaluation.effects is None else evaluation.effects.heads
    keys: dict[HeadSort, Callable[[Head], float]] = {
        "gain": lambda head: -gain(evaluation, *there[head]),
        "kl": lambda head: evaluation.lens[there[head][0]][there[head][1]].kl,
        "effect": lambda head: -effects[head].size if head in effects else 0.0,
    }
    return list(there) if sort == "layer" else sorted(there, key=keys[sort])


def gain(evaluation: "Evaluation", layer: int, index: int) -> float:
    """KL of the mean output less that of the lens, nats."""
    return -evaluation.comparisons["mean-output"][layer][index].kl.difference


def head_grid(evaluation: "Evaluation", figure: str) -> "HeadGrid":
    """One figure of every head, or a gain: the KL of a baseline minus that of the lens, above 0 where the lens is
    better.

    Gains are marked where the two intervals lie apart. Raises `RequestError` for a baseline that was not judged.
    """
    from alens.pictures.head_grid import HeadGrid

    there = places(evaluation)
    silent = {head for head, (layer, i) in there.items() if evaluation.says_nothing[layer][i]}
    rows = f"{evaluation.rows:,} held-out rows"
    if figure in GAINS:
        baseline = BASELINES[GAINS[figure]]
        if GAINS[figure] not in evaluation.comparisons:
            raise RequestError(f"there is no {baseline} to compare with here")
        compared = evaluation.comparisons[GAINS[figure]]
        differences = {head: compared[layer][i].kl for head, (layer, i) in there.items()}
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
        values={head: getattr(evaluation.lens[layer][i], field) for head, (layer, i) in there.items()},
        number_title=f"{title} ({UNITS[figure]})" if figure in UNITS else title,
        silent=silent,
    )


def _heading(evaluation: "Evaluation") -> Iterator[str]:
    """What was judged on."""
    from alens.statistics.groups import said

    kind = "held-out rows" if evaluation.trained_on == "no" else "rows, perhaps trained on,"
    left_out = ""
    if evaluation.sequences_left_out:
        left_out = f" ({number_of(evaluation.sequences_left_out, 'sequence')} left out: trained on)"
    yield (
        f"{evaluation.rows:,} {kind} of {number_of(evaluation.sequences, 'sequence')}{left_out}, {evaluation.teacher} teacher; "
        "KL, CE and entropy in nats"
    )
    yield said(evaluation.intervals_over, evaluation.groups)


def _summary(evaluation: "Evaluation") -> Iterator[str]:
    """How many lenses beat the mean output, and by how much."""
    gains = {head: gain(evaluation, *place) for head, place in places(evaluation).items()}
    wins, best = evaluation.wins("mean-output"), max(gains, key=lambda head: gains[head])
    yield (
        f"{number_of(wins.heads, 'lens', 'lenses')}: {wins.better} beat the mean output, {wins.surely_better} surely; "
        f"gain in nats: median {signed(median(gains.values()))}, best {signed(gains[best])} ({best[0]}.{best[1]})"
    )


def _show_heads(evaluation: "Evaluation", figures: Sequence[str], sort: HeadSort, *, all_heads: bool) -> None:
    """A line a head: the chosen figures of its lens with their intervals, its gain and the KL of its unembedding."""
    from alens.cli.tables import console, show_table

    def cells(layer: int, index: int) -> "Iterator[Cell]":
        for name in figures:
            yield _with_interval(evaluation.lens[layer][index], FIGURES[name][0])
            if name == "kl":
                yield signed(gain(evaluation, layer, index))
                if evaluation.unembedding:
                    yield fixed(evaluation.unembedding[layer][index].kl)

    headings: list[Cell] = ["head"]
    for name in figures:
        headings.append(FIGURES[name][1])
        if name == "kl":
            headings += ["gain", *(["unemb."] if evaluation.unembedding else [])]
    there, heads = places(evaluation), in_order(evaluation, sort)
    shown = heads if all_heads else heads[:SCREENFUL]
    show_table(
        headings,
        [
            (marks.label(*head, evaluation.says_nothing[layer][index]), *cells(layer, index))
            for head, (layer, index) in ((head, there[head]) for head in shown)
        ],
        title="lens of each head" + (", ± half the 95 % interval" if evaluation.groups > 1 else ""),
    )
    if len(heads) > 1:
        sorts = [name for name in get_args(HeadSort) if name != "effect" or evaluation.effects is not None]
        hidden = len(heads) - len(shown)
        console().print(order_said(SORTED[sort], hidden, len(heads), sort=sort, sorts=sorts))


def _show_readings(evaluation: "Evaluation", *, all_heads: bool) -> None:
    """A line a reading: all figures of lenses, baselines and the model. Readings of many layers have a mean."""
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
            everyone = [figures for heads in by_layer.values() for figures in heads]
            title = f"{BASELINES.get(reading, reading)} mean"
            lines.append([title, *(fixed(_mean(everyone, field)) for field in fields)])
    lines.append(line("mean output", evaluation.mean_output))
    for reading, layers in evaluation.of_layers.items():
        title = BASELINES[reading].removesuffix(" of the layer")
        if all_heads or len(layers) <= FEW_LAYERS:
            lines += [line(f"{title} {layer}", figures) for layer, figures in layers.items()]
        else:
            means = (fixed(_mean(list(layers.values()), field)) for field in fields)
            lines.append([f"{title} mean", *means])
    if evaluation.model is not None:
        lines.append(line("the model", evaluation.model))
    headings = [heading for _, heading in FIGURES.values()]
    show_table(("reading", *headings), lines, title="lenses and baselines", text=("reading",))


def _show_wins(evaluation: "Evaluation") -> None:
    """In how many heads the lens has a lower KL than each baseline."""
    from alens.cli.tables import show_table

    lines = []
    for baseline in evaluation.comparisons:
        wins = evaluation.wins(baseline)
        counts = (wins.better, wins.surely_better, wins.better_apart)
        lines.append((BASELINES.get(baseline, baseline), *(f"{count:,}" for count in counts)))
    show_table(
        ("baseline", ("lower", "KL"), ("paired", "interval below 0"), ("intervals", "apart")),
        lines,
        title=f"in how many of {number_of(evaluation.wins('mean-output').heads, 'head')} the lens is better than a baseline",
        text=("baseline",),
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
