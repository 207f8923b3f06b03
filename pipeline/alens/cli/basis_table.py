"""What `alens basis` prints and draws: rho and influences of each head's directions, and means over layers.

In: a `BasisStudy`. Out: tables and lines for 80 columns, and a grid of heads.
"""

from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.lens.marks import label, note
from alens.pictures.numbers import fixed, interval, p_value, percent

if TYPE_CHECKING:
    from alens.pictures.head_grid import HeadGrid
    from alens.studies.basis.result import BasisStudy, HeadBases, LayerFidelity


def show_basis(study: "BasisStudy") -> None:
    """Print a table of heads, one of layers, and what their columns mean."""
    from alens.cli.tables import show_table
    from alens.statistics.groups import said

    top = study.settings.top
    show_table(
        ("head", "basis", "rho", "95 %", "p", "reading\nall", "model\nall", f"model\nfirst {top}"),
        [row for head in study.heads for row in _head_rows(head)],
        title=f"{study.directions} directions, {study.settings.ablation} ablation, "
        f"{study.sequences} sequences of {study.positions} positions; influences in nats",
        text=("basis",),
    )
    show_table(
        ("layer", "basis", "rho", "95 %", "lowest to highest", f"model\nfirst {top}"),
        [_layer_row(one) for layer in study.layers for one in layer],
        title="By layer: means over heads",
        text=("basis",),
    )
    show(
        "rho: rank correlation, over directions, of influence on the reading and on the model",
        said(study.intervals_over, study.groups),
        f"all: every direction of z ablated together; first {top}: the first {top} together, as a share of all",
    )
    if meaning := note((head.layer, head.head) for head in study.heads if head.says_nothing):
        show(meaning)
    if study.has_few_rows:
        show(
            f"few rows: {study.sequences * study.positions:,} were measured on; rho is likely too high, and its interval "
            "often misses: give more --sequences"
        )


def head_grid(study: "BasisStudy") -> "HeadGrid":
    """Rho of each head's own basis."""
    from alens.pictures.head_grid import HeadGrid

    return HeadGrid.from_heads(
        study.heads,
        lambda head: head.bases[0].fidelity.correlation.rho,
        title=f"Causal fidelity of {len(study.heads)} head{'' if len(study.heads) == 1 else 's'}",
        number_title="rho, lens and model",
        centre=0.0,
    )


def _head_rows(head: "HeadBases") -> list[tuple[str, ...]]:
    return [
        (
            label(head.layer, head.head, head.says_nothing) if basis.basis == "lens" else "",
            basis.basis,
            fixed(basis.correlation.rho, 2),
            interval(basis.correlation.interval, 2),
            p_value(basis.correlation.p_value),
            fixed(basis.lens_whole),
            fixed(basis.model_whole, 4),
            percent(basis.model_share),
        )
        for basis in (one.fidelity for one in head.bases)
    ]


def _layer_row(one: "LayerFidelity") -> tuple[str, ...]:
    ends = None if one.lowest is None or one.highest is None else (one.lowest, one.highest)
    return (
        str(one.layer) if one.basis == "lens" else "",
        one.basis,
        fixed(one.rho, 2),
        interval(one.interval, 2),
        interval(ends, 2),
        percent(one.model_share),
    )
