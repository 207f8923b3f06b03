"""What `alens transfer` prints and draws: matrices of layers or heads, and lenses at home and on a copy.

In: a `TransferMatrix`, or a `CopyTransfer` and the way to read the copy that is shown. Out: tables and lines, and grids.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.lens import marks
from alens.pictures.numbers import fixed, interval, signed

if TYPE_CHECKING:
    from alens.cli.tables import Cell
    from alens.pictures.head_grid import HeadGrid
    from alens.studies.transfer.copy_figures import CopyDifference, CopyTransfer, Way
    from alens.studies.transfer.result import TransferMatrix

FIGURES = {"kl": "KL", "ce": "cross-entropy"}
FIELDS = {"kl": "kl", "ce": "cross_entropy"}
"""The fields of results, by the name of an option."""
ROUNDING = 1e-6
"""Differences in nats below this are none."""
BEST = {"kl": "best_kl", "ce": "best_cross_entropy"}


def show_matrix(matrix: "TransferMatrix", between: str, figure: str) -> None:
    """Print how lenses read other heads of their model, by layers or by heads."""
    from alens.statistics.groups import said

    field, name = FIELDS[figure], FIGURES[figure]
    show(
        f"{matrix.rows:,} held-out rows of {matrix.sequences:,} sequences, {matrix.teacher} teacher, {matrix.site}; "
        f"matched: {matrix.match}; {name} in nats",
        said(matrix.intervals_over, matrix.groups),
        "",
    )
    if between == "layers":
        _show_layers(matrix, figure)
    else:
        _show_heads(matrix, field)
    show(f"mean output (no lens): {name} {fixed(getattr(matrix.mean_output, field))}")
    _show_note("", matrix.heads, matrix.says_nothing)


def matrix_grid(matrix: "TransferMatrix", between: str, figure: str) -> "HeadGrid":
    """The figure of each lens on each layer or head, minus that of the head's own lens."""
    return _layer_grid(matrix, figure) if between == "layers" else _pair_grid(matrix, figure)


def _layer_grid(matrix: "TransferMatrix", figure: str, *, best: bool = False) -> "HeadGrid":
    """Means over pairs of heads; with `best`, over heads with the lens that reads each best."""
    from alens.pictures.head_grid import HeadGrid

    field = BEST[figure] if best else FIELDS[figure]
    marked = {(pair.source, pair.target) for pair in matrix.by_layer if pair.beats_mean_output and not best}
    return HeadGrid(
        title="Lens of a layer on another layer",
        values={(pair.source, pair.target): _or_zero(getattr(pair, field)) for pair in matrix.by_layer},
        number_title=_less_own(figure),
        centre=0.0,
        marked=marked,
        mark_title="beats the mean output" if marked else "",
        row_title="lens of layer",
        column_title="on layer",
    )


def _pair_grid(matrix: "TransferMatrix", figure: str) -> "HeadGrid":
    from alens.pictures.head_grid import HeadGrid

    differences_ST = matrix.differences(FIELDS[figure])
    beats_ST = matrix.kl_ST < matrix.mean_output.kl
    pairs = {
        (source, target): (s, t)
        for s, source in enumerate(matrix.heads)
        for t, target in enumerate(matrix.heads)
    }
    marked = {pair for pair, place in pairs.items() if beats_ST[place]}
    return HeadGrid(
        title="Lens of a head on another head",
        values={pair: _or_zero(float(differences_ST[place])) for pair, place in pairs.items()},
        number_title=_less_own(figure),
        centre=0.0,
        marked=marked,
        mark_title="beats the mean output" if marked else "",
        row_title="lens of head",
        column_title="on head",
        names={
            (layer, head): marks.label(layer, head, is_nothing)
            for (layer, head), is_nothing in zip(matrix.heads, matrix.says_nothing, strict=True)
        },
    )


def _or_zero(nats: float) -> float:
    """A lens on its own head differs from itself by the rounding of float32 alone: that is 0."""
    return nats if abs(nats) >= ROUNDING else 0.0


def _less_own(figure: str) -> str:
    return f"{FIGURES[figure]} less that of the head's own lens, nats"


def _show_layers(matrix: "TransferMatrix", figure: str) -> None:
    """Means over pairs of heads; where a layer has several heads, also with the best lens for each head."""
    from alens.cli.tables import show_grid

    title = f"{FIGURES[figure]} of the lens of one layer on another, less that of the layer's own lens (mean over pairs of heads)"
    layers = sorted(matrix.layers)
    nothing = ["mean output", *(signed(_no_lens(matrix, layer, FIELDS[figure])) for layer in layers)]
    show_grid(_layer_grid(matrix, figure), signed, title=title, foot=[nothing])
    if max(pair.pairs for pair in matrix.by_layer) > 1:
        show_grid(
            _layer_grid(matrix, figure, best=True), signed, title="the same, with the best lens for each head"
        )
    beat = sum(pair.beat_mean_output for pair in matrix.by_layer)
    pairs = sum(pair.pairs for pair in matrix.by_layer)
    show(f"* KL below that of the mean output, by the 95 % interval; {beat} of {pairs} pairs are below it")


def _show_heads(matrix: "TransferMatrix", field: str) -> None:
    from alens.cli.tables import show_table

    differences_ST, best = matrix.differences(field), matrix.best_sources()
    beats_ST = matrix.kl_ST < matrix.mean_output.kl
    rows = []
    for t, (layer, head) in enumerate(matrix.heads):
        others = int(beats_ST[:, t].sum() - beats_ST[t, t])
        rows.append(
            (
                marks.label(layer, head, matrix.says_nothing[t]),
                fixed(getattr(matrix.native[t], field)),
                marks.label(*matrix.heads[best[t]], matrix.says_nothing[best[t]]),
                signed(float(differences_ST[best[t], t])),
                f"{others} of {len(matrix.heads) - 1}",
            )
        )
    show_table(
        ("head", "own lens", "best other", "its difference", "beat the mean output"),
        rows,
        title="each head, its own lens, and the lens of another head that has the lowest KL on it",
    )


def _show_note(whose: str, heads: Sequence[tuple[int, int]], says_nothing: Sequence[bool]) -> None:
    """Name the lenses that say nothing, if there are any."""
    if note := marks.note(head for head, is_nothing in zip(heads, says_nothing, strict=True) if is_nothing):
        show(f"{whose}{note}")


def _no_lens(matrix: "TransferMatrix", layer: int, field: str) -> float:
    """The mean output's figure, minus that of the layer's own lenses."""
    own = [
        getattr(figures, field)
        for (of_layer, _), figures in zip(matrix.heads, matrix.native, strict=True)
        if of_layer == layer
    ]
    return float(getattr(matrix.mean_output, field) - sum(own) / len(own))


def show_copy(transfer: "CopyTransfer", way: "Way", figure: str) -> None:
    """Print how lenses read a fine-tuned copy of their model, in one way for each head and in every way on average."""
    from alens.cli.tables import show_table
    from alens.statistics.groups import said

    field, name = FIELDS[figure], FIGURES[figure]
    rows = "the same rows" if transfer.same_rows else f"{transfer.home_rows:,} other rows at home"
    show(
        f"{transfer.rows:,} rows of {transfer.sequences:,} sequences on the copy, {rows}; {transfer.teacher} teacher, "
        f"{transfer.site}; {name} in nats",
        said(transfer.intervals_over, transfer.groups),
        "",
    )
    own = ("copy's own lens", "difference") if transfer.native else ()
    show_table(
        ("head", "at home", "on the copy", *own),
        [_copy_row(transfer, way, field, index) for index in range(len(transfer.heads))],
        title=f"each lens at home and on the copy (by {way.by}, matched: {way.match})",
    )
    show_table(
        ("by", "matched", figure.upper(), "less\nown lens", "less\nmean output", "less\nat home"),
        [
            (
                other.by,
                other.match,
                fixed(getattr(other, field)),
                *(
                    _difference(less, field)
                    for less in (other.less_native, other.less_mean_output, other.less_home)
                ),
            )
            for other in transfer.ways
        ],
        title=f"every way to read the copy: means over heads, {name} with its 95 % interval",
        text=("by", "matched"),
    )
    show(
        f"mean output (no lens): {name} {fixed(getattr(transfer.home_mean_output, field))} at home, "
        f"{fixed(getattr(transfer.mean_output, field))} on the copy; {way.beat_mean_output} of {len(way.heads)} lenses have a lower KL there"
    )
    _show_note("", transfer.heads, transfer.says_nothing)
    if transfer.native_says_nothing is not None:
        _show_note("the copy's own: ", transfer.heads, transfer.native_says_nothing)


def copy_grid(transfer: "CopyTransfer", way: "Way", figure: str) -> "HeadGrid":
    """The figure of each lens on the copy, minus that of the copy's own lens or, without one, that at home."""
    from alens.pictures.head_grid import HeadGrid

    field = FIELDS[figure]
    compared = transfer.home if transfer.native is None else transfer.native
    less = "that at home" if transfer.native is None else "that of the copy's own lens"
    marked = {
        place
        for place, head in zip(transfer.heads, way.heads, strict=True)
        if head.kl < transfer.mean_output.kl
    }
    return HeadGrid(
        title="Lenses of a model on its fine-tuned copy",
        values={
            place: getattr(there, field) - getattr(here, field)
            for place, there, here in zip(transfer.heads, way.heads, compared, strict=True)
        },
        number_title=f"{FIGURES[figure]} less {less}, nats",
        centre=0.0,
        marked=marked,
        mark_title="beats the mean output" if marked else "",
        silent={place for place, silent in zip(transfer.heads, transfer.says_nothing, strict=True) if silent},
        site=transfer.site,
    )


def _copy_row(transfer: "CopyTransfer", way: "Way", field: str, index: int) -> tuple[str, ...]:
    layer, head = transfer.heads[index]
    there = getattr(way.heads[index], field)
    row = (
        marks.label(layer, head, transfer.says_nothing[index]),
        fixed(getattr(transfer.home[index], field)),
        fixed(there),
    )
    if transfer.native is None:
        return row
    own = getattr(transfer.native[index], field)
    silent = transfer.native_says_nothing is not None and transfer.native_says_nothing[index]
    return (*row, f"{fixed(own)}{marks.SIGN if silent else ''}", signed(there - own))


def _difference(less: "CopyDifference | None", field: str) -> "Cell":
    if less is None:
        return "-"
    value, ends = getattr(less, field), getattr(less, f"{field}_interval")
    return signed(value) if ends is None else (signed(value), f"({interval(ends, sign=True)})")
