"""`alens transfer`: lenses on other heads of their model, and on a fine-tuned copy of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.parameters import NUMBERS, config_option, device_option, json_option, print_json
from alens.errors import RequestError

if TYPE_CHECKING:
    from alens.pictures.heat_map import HeatMap
    from alens.studies.transfer.copy_figures import CopyTransfer, Way
    from alens.studies.transfer.transfer import TransferMatrix

FIGURES = {"kl": "KL", "ce": "cross-entropy"}
FIELDS = {"kl": "kl", "ce": "cross_entropy"}


@click.command(
    "transfer",
    epilog="Example: alens transfer .demo/lenses .demo/cache --between layers --heat-map transfer.png",
)
@click.argument("lenses", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "copy",
    type=click.Path(path_type=Path),
    metavar="STORE2",
    help="A cache of a fine-tuned copy of the model: lenses are put on its heads.",
)
@click.option(
    "--native",
    type=click.Path(path_type=Path),
    metavar="LENSES2",
    help="Lenses fitted on STORE2, to compare with; judged on rows that neither fit has seen.",
)
@click.option(
    "--between",
    type=click.Choice(["layers", "heads"]),
    default="layers",
    show_default=True,
    help="What the matrix shows, without --to: means over pairs of heads, or every pair.",
)
@click.option("--layers", type=NUMBERS, help="Layers to take.  [default: all that were fitted]")
@click.option("--heads", type=NUMBERS, help="Heads to take.  [default: all that were fitted]")
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Held-out rows at most. Time grows with rows, and with the square of the number of heads.",
)
@click.option(
    "--match",
    type=click.Choice(["none", "mean", "scale"]),
    default="scale",
    show_default=True,
    help="What is brought to the values that a lens was fitted to: nothing, the mean, mean and overall scale.",
)
@click.option(
    "--by",
    type=click.Choice(["output", "value"]),
    help="With --to: read a head's output through the old W_O, or its z as it is.  [default: value]",
)
@click.option(
    "--figure",
    type=click.Choice(list(FIGURES)),
    default="kl",
    show_default=True,
    help="What table and heat map show: KL or cross-entropy.",
)
@click.option(
    "--heat-map",
    "picture",
    type=click.Path(path_type=Path),
    metavar="FILE.png|FILE.html",
    help="Draw the matrix of differences.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the intervals.")
@device_option
@json_option
@config_option
def command(
    lenses: Path,
    store: Path,
    copy: Path | None,
    native: Path | None,
    between: str,
    layers: tuple[int, ...] | None,
    heads: tuple[int, ...] | None,
    rows: int,
    match: str,
    by: str | None,
    figure: str,
    picture: Path | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Put LENSES on heads that they were not fitted to, and show what that costs.

    STORE is a cache of their model. Without --to each lens reads each other head, brought to its coordinates in
    the residual stream: rows of the matrix are lenses, columns the heads they read. With --to each lens reads
    its own head of a fine-tuned copy. Figures are KL and cross-entropy less those of the head's own lens, in
    nats, on rows that the fit held out.
    """
    from alens.cli.watch import watching
    from alens.device import torch_device
    from alens.lens.saved import load_lenses
    from alens.pictures import heat_map
    from alens.store.reader import open_cache
    from alens.store.schema import ATTN_Z
    from alens.studies.transfer.finetuned import transfer_to_copy
    from alens.studies.transfer.transfer import transfer

    _check(copy, native, by, between)
    if picture is not None:
        heat_map.check_path(picture)
    opened, cache = load_lenses(lenses), open_cache(store)
    if by == "output" and opened.record.site != ATTN_Z:
        raise RequestError(f"{lenses} reads {opened.record.site}, which has no output matrix: leave --by out")
    asked: Any = {"layers": layers, "heads": heads, "num_rows": rows, "seed": seed}
    asked["device"] = torch_device(device)
    drawn: HeatMap
    with watching() as report:
        if copy is None:
            matrix = transfer(opened, cache, match=match, report=report, **asked)
            body, drawn = matrix.to_json(), _map_of_matrix(matrix, between, figure)
        else:
            fitted = None if native is None else load_lenses(native)
            found = transfer_to_copy(opened, cache, open_cache(copy), native=fitted, report=report, **asked)
            way = found.way(by or "value", match)
            body, drawn = found.to_json(), _map_of_copy(found, way, figure)
    if picture is not None:
        heat_map.write(picture, drawn)
    if as_json:
        print_json(body)
    elif copy is None:
        _show_matrix(matrix, between, figure, drawn)
    else:
        _show_copy(found, way, figure)


def _check(copy: Path | None, native: Path | None, by: str | None, between: str) -> None:
    """Options that mean nothing together."""
    if copy is None and native is not None:
        raise RequestError("--native names lenses of a copy: give the copy's cache with --to")
    if copy is None and by is not None:
        raise RequestError("--by says how a copy's heads are read: give the copy's cache with --to")
    if copy is not None and between == "heads":
        raise RequestError("--between heads is for one model: with --to each lens reads its own head")


# Heat maps


def _map_of_matrix(found: "TransferMatrix", between: str, figure: str) -> "HeatMap":
    import numpy as np

    from alens.pictures.heat_map import HeatMap

    if between == "heads":
        names = [f"{layer}.{head}" for layer, head in found.heads]
        values = found.differences(FIELDS[figure])
        marks = found.kl_ST < found.mean_output.kl
    else:
        names = [str(layer) for layer in found.layers]
        pairs, shape = found.by_layer(), (len(names), len(names))
        values = np.array([getattr(pair, FIELDS[figure]) for pair in pairs]).reshape(shape)
        marks = np.array([pair.over_mean_output_interval[1] < 0 for pair in pairs]).reshape(shape)
    what = between.removesuffix("s")
    return HeatMap(
        title=f"Lens of a {what} on another {what}",
        values=values,
        rows=names,
        columns=names,
        row_title=f"lens of {what}",
        column_title=f"on {what}",
        colour_title=f"{FIGURES[figure]} less the own lens's, nats",
        centre=0.0,
        marks=marks,
        mark_title="beats the mean output" if marks.any() else "",
    )


def _map_of_copy(found: "CopyTransfer", way: "Way", figure: str) -> "HeatMap":
    import numpy as np

    from alens.pictures.heat_map import HeatMap

    layers, heads = (list(dict.fromkeys(part)) for part in zip(*found.heads, strict=True))
    compared = found.home if found.native is None else found.native
    field = FIELDS[figure]
    values = [getattr(a, field) - getattr(b, field) for a, b in zip(way.heads, compared, strict=True)]
    marks = np.array([head.kl < found.mean_output.kl for head in way.heads])
    shape = (len(layers), len(heads))
    of = "at home" if found.native is None else "the copy's own lens's"
    return HeatMap(
        title="Lenses of a model on its fine-tuned copy",
        values=np.array(values).reshape(shape),
        rows=[str(layer) for layer in layers],
        columns=[str(head) for head in heads],
        row_title="layer",
        column_title="head",
        colour_title=f"{FIGURES[figure]} less {of}, nats",
        centre=0.0,
        marks=marks.reshape(shape),
        mark_title="beats the mean output" if marks.any() else "",
    )


# Text


def _table(title: str) -> Any:
    """An empty table under its title."""
    from rich.box import SIMPLE
    from rich.table import Table

    click.echo(f"\n{title}")  # a title of the table would be cut to its width
    return Table(box=SIMPLE)


def _show_matrix(found: "TransferMatrix", between: str, figure: str, drawn: "HeatMap") -> None:
    from rich.console import Console

    console = Console()
    field, name = FIELDS[figure], FIGURES[figure]
    click.echo(
        f"{found.rows:,} held-out rows of {found.sequences:,} sequences, {found.teacher} teacher, {found.site}; "
        f"matched: {found.match}; {name} in nats"
    )
    if between == "layers":
        _show_layers(found, drawn, field, name, console)
    else:
        table = _table("each head, its own lens, and the lens of another head that has the lowest KL on it")
        for column in ("head", "own lens", "best other", "its difference", "beat the mean output"):
            table.add_column(column, justify="right")
        differences_ST, best = found.differences(field), found.best_sources()
        beat_ST = found.kl_ST < found.mean_output.kl
        for t, (layer, head) in enumerate(found.heads):
            others = int(beat_ST[:, t].sum() - beat_ST[t, t])
            own = f"{getattr(found.native[t], field):.3f}"
            other = ".".join(map(str, found.heads[best[t]]))
            table.add_row(
                f"{layer}.{head}", own, other, f"{differences_ST[best[t], t]:+.3f}", f"{others} of {len(found.heads) - 1}"
            )  # fmt: skip
        console.print(table)
    click.echo(f"mean output (no lens): {name} {getattr(found.mean_output, field):.3f}")


def _show_layers(found: "TransferMatrix", drawn: "HeatMap", field: str, name: str, console: Any) -> None:
    pairs = {(pair.source, pair.target): pair for pair in found.by_layer()}
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
            marks = [
                "*" if pairs[i, j].over_mean_output_interval[1] < 0 and of == field else ""
                for j in found.layers
            ]
            cells = [
                f"{getattr(pairs[i, j], of):+.3f}{mark}" for j, mark in zip(found.layers, marks, strict=True)
            ]
            table.add_row(str(i), *cells)
        if of == field:
            table.add_section()
            table.add_row("mean output", *(f"{_no_lens(found, j, field):+.3f}" for j in found.layers))
        console.print(table)
    beat, of_all = sum(p.beat_mean_output for p in pairs.values()), sum(p.pairs for p in pairs.values())
    click.echo(
        f"* KL below that of the mean output, by the 95 % interval; {beat} of {of_all} pairs are below it"
    )


def _no_lens(found: "TransferMatrix", layer: int, field: str) -> float:
    """The mean output, less the layer's own lenses."""
    own = [getattr(of, field) for (at, _), of in zip(found.heads, found.native, strict=True) if at == layer]
    return float(getattr(found.mean_output, field) - sum(own) / len(own))


def _show_copy(found: "CopyTransfer", way: "Way", figure: str) -> None:
    from rich.console import Console

    field, name = FIELDS[figure], FIGURES[figure]
    rows = "the same rows" if found.same_rows else f"{found.home_rows:,} other rows at home"
    click.echo(
        f"{found.rows:,} rows of {found.sequences:,} sequences on the copy, {rows}; {found.teacher} teacher, "
        f"{found.site}; {name} in nats"
    )
    table = _table(f"each lens at home and on the copy (by {way.by}, matched: {way.match})")
    columns = ["head", "at home", "on the copy", *(["copy's own lens", "difference"] if found.native else [])]
    for column in columns:
        table.add_column(column, justify="right")
    for n, (layer, head) in enumerate(found.heads):
        home, there = getattr(found.home[n], field), getattr(way.heads[n], field)
        cells = [f"{layer}.{head}", f"{home:.3f}", f"{there:.3f}"]
        if found.native:
            native = getattr(found.native[n], field)
            cells += [f"{native:.3f}", f"{there - native:+.3f}"]
        table.add_row(*cells)
    Console().print(table)
    ways = _table("every way to read the copy: means over heads, KL with its 95 % interval")
    for column in ("by", "matched", "KL", "less own lens", "less mean output", "less at home"):
        ways.add_column(column, justify="right")
    for other in found.ways:
        compared = (other.less_native, other.less_mean_output, other.less_home)
        ways.add_row(other.by, other.match, f"{other.kl:.3f}", *(_difference(of) for of in compared))
    Console().print(ways)
    click.echo(
        f"mean output (no lens): {name} {getattr(found.home_mean_output, field):.3f} at home, "
        f"{getattr(found.mean_output, field):.3f} on the copy; {way.beat_mean_output} of {len(way.heads)} lenses beat it there"
    )


def _difference(of: Any) -> str:
    if of is None:
        return "-"
    if of.kl_interval is None:
        return f"{of.kl:+.3f}"
    low, high = of.kl_interval
    return f"{of.kl:+.3f}\n{low:+.3f} to {high:+.3f}"
