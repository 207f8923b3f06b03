"""What `alens transfer` found, as text: matrices of layers or heads, and lenses at home and on a copy."""

from typing import TYPE_CHECKING, Any

from alens.cli.console import show
from alens.lens import marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alens.studies.transfer.copy_figures import CopyDifference, CopyTransfer, Way
    from alens.studies.transfer.result import TransferMatrix

FIGURES = {"kl": "KL", "ce": "cross-entropy"}
FIELDS = {"kl": "kl", "ce": "cross_entropy"}
"""What the results call them."""


def _table(title: str) -> Any:
    """An empty table under its title."""
    from rich.box import SIMPLE
    from rich.table import Table

    show("", title)  # a title of the table would be cut to its width
    return Table(box=SIMPLE)


def show_matrix(found: "TransferMatrix", between: str, figure: str) -> None:
    """Lenses on other heads of their model."""
    from alens.cli.tables import console
    from alens.statistics.groups import said

    drawn = console()
    field, name = FIELDS[figure], FIGURES[figure]
    show(
        f"{found.rows:,} held-out rows of {found.sequences:,} sequences, {found.teacher} teacher, {found.site}; "
        f"matched: {found.match}; {name} in nats",
        said(found.intervals_over, found.groups),
    )
    if between == "layers":
        _show_layers(found, field, name, drawn)
    else:
        table = _table("each head, its own lens, and the lens of another head that has the lowest KL on it")
        for column in ("head", "own lens", "best other", "its difference", "beat the mean output"):
            table.add_column(column, justify="right")
        differences_ST, best = found.differences(field), found.best_sources()
        beat_ST = found.kl_ST < found.mean_output.kl
        for t, (layer, head) in enumerate(found.heads):
            others = int(beat_ST[:, t].sum() - beat_ST[t, t])
            own = f"{getattr(found.native[t], field):.3f}"
            other = marks.label(*found.heads[best[t]], found.says_nothing[best[t]])
            table.add_row(
                marks.label(layer, head, found.says_nothing[t]), own, other, f"{differences_ST[best[t], t]:+.3f}", f"{others} of {len(found.heads) - 1}"
            )  # fmt: skip
        drawn.print(table)
    show(f"mean output (no lens): {name} {getattr(found.mean_output, field):.3f}")
    _note("", found.heads, found.says_nothing)


def _note(whose: str, heads: "Sequence[tuple[int, int]]", says_nothing: "Sequence[bool]") -> None:
    """Which lenses say nothing, if any."""
    if note := marks.note(head for head, is_nothing in zip(heads, says_nothing, strict=True) if is_nothing):
        show(f"{whose}{note}")


def _show_layers(found: "TransferMatrix", field: str, name: str, drawn: Any) -> None:
    pairs = {(pair.source, pair.target): pair for pair in found.by_layer}
    best = "best_kl" if field == "kl" else "best_cross_entropy"
    titles = {
        field: f"{name} of the lens of one layer on another, less that of the layer's own lens (mean over pairs of heads)",
        best: "the same, with the best source head for each head",
    }
    single = max(pair.pairs for pair in pairs.values()) == 1
    for of, title in list(titles.items())[: 1 if single else 2]:
        table = _table(title)
        table.add_column("lens of \\ on", justify="right")
        for layer in found.layers:
            table.add_column(str(layer), justify="right")
        for i in found.layers:
            marks = ["*" if pairs[i, j].beats_mean_output and of == field else "" for j in found.layers]
            cells = [
                f"{getattr(pairs[i, j], of):+.3f}{mark}" for j, mark in zip(found.layers, marks, strict=True)
            ]
            table.add_row(str(i), *cells)
        if of == field:
            table.add_section()
            table.add_row("mean output", *(f"{_no_lens(found, j, field):+.3f}" for j in found.layers))
        drawn.print(table)
    beat, of_all = sum(p.beat_mean_output for p in pairs.values()), sum(p.pairs for p in pairs.values())
    show(f"* KL below that of the mean output, by the 95 % interval; {beat} of {of_all} pairs are below it")


def _no_lens(found: "TransferMatrix", layer: int, field: str) -> float:
    """The mean output, less the layer's own lenses."""
    own = [getattr(of, field) for (at, _), of in zip(found.heads, found.native, strict=True) if at == layer]
    return float(getattr(found.mean_output, field) - sum(own) / len(own))


def show_copy(found: "CopyTransfer", way: "Way", figure: str) -> None:
    """Lenses on a fine-tuned copy of their model."""
    from alens.cli.tables import console
    from alens.statistics.groups import said

    drawn = console()
    field, name = FIELDS[figure], FIGURES[figure]
    rows = "the same rows" if found.same_rows else f"{found.home_rows:,} other rows at home"
    show(
        f"{found.rows:,} rows of {found.sequences:,} sequences on the copy, {rows}; {found.teacher} teacher, "
        f"{found.site}; {name} in nats",
        said(found.intervals_over, found.groups),
    )
    table = _table(f"each lens at home and on the copy (by {way.by}, matched: {way.match})")
    columns = ["head", "at home", "on the copy", *(["copy's own lens", "difference"] if found.native else [])]
    for column in columns:
        table.add_column(column, justify="right")
    for n, (layer, head) in enumerate(found.heads):
        home, there = getattr(found.home[n], field), getattr(way.heads[n], field)
        cells = [marks.label(layer, head, found.says_nothing[n]), f"{home:.3f}", f"{there:.3f}"]
        if found.native:
            native = getattr(found.native[n], field)
            nothing = found.native_says_nothing is not None and found.native_says_nothing[n]
            cells += [f"{native:.3f}{marks.SIGN if nothing else ''}", f"{there - native:+.3f}"]
        table.add_row(*cells)
    drawn.print(table)
    ways = _table(f"every way to read the copy: means over heads, {name} with its 95 % interval")
    figures = (figure.upper(), "less\nown lens", "less\nmean output", "less\nat home")
    for column in ("by", "matched", *figures):
        ways.add_column(column, justify="right", no_wrap=True)
    for other in found.ways:
        compared = (other.less_native, other.less_mean_output, other.less_home)
        ways.add_row(
            other.by,
            other.match,
            f"{getattr(other, field):.3f}",
            *(_difference(of, field) for of in compared),
        )
    drawn.print(ways)
    show(
        f"mean output (no lens): {name} {getattr(found.home_mean_output, field):.3f} at home, "
        f"{getattr(found.mean_output, field):.3f} on the copy; {way.beat_mean_output} of {len(way.heads)} lenses have a lower KL there"
    )
    _note("", found.heads, found.says_nothing)
    if found.native_says_nothing is not None:
        _note("the copy's own: ", found.heads, found.native_says_nothing)


def _difference(of: "CopyDifference | None", field: str) -> str:
    if of is None:
        return "-"
    value, interval = getattr(of, field), getattr(of, f"{field}_interval")
    if interval is None:
        return f"{value:+.3f}"
    return f"{value:+.3f}\n{interval[0]:+.3f}..{interval[1]:+.3f}"
