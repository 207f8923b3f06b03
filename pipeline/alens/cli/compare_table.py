"""What `alens compare` found, as text: the heads that change most, the tokens, and how well detectors do.

In: a `Comparison`. Out: rich tables and lines for 80 columns.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.cli.p_value import shown
from alens.lens.marks import kl_reference, label, note

if TYPE_CHECKING:
    from alens.studies.comparison.result import Comparison, HeadChange, ReadingChange, TokenChange

WIDTH = 120
"""Characters of a line where nobody looks at a terminal: nothing is folded."""
UNEQUAL = 2.0
"""From this ratio of spreads on, skewed readings cost the test its level: docs/decisions/0034."""
TOKENS_SHOWN = 4
"""In a cell of the table; the JSON has all."""


def show_comparison(found: "Comparison", most: int) -> None:
    """Print the `most` heads that change most, the detectors, and what to know beside them."""
    from rich.box import SIMPLE
    from rich.table import Table

    from alens.cli import tables

    console = tables.console(width=None if sys.stdout.isatty() else WIDTH)
    noisy = found.model.noise is not None
    table = Table(
        title=f"{found.num_clean} clean and {found.num_suspect} suspect prompts, position {found.position}; "
        f"{min(most, len(found.heads))} of {len(found.heads)} heads\nJensen-Shannon divergence (JS) in nats, at most 0.693",
        box=SIMPLE,
        show_edge=False,
        show_lines=True,
        pad_edge=False,
        collapse_padding=True,
    )
    aucs = {}
    if found.detection:
        aucs = {(one.layer, one.head): one.contrast_auc for one in found.detection.heads}
    table.add_column("head\nKL", justify="right", no_wrap=True)
    table.add_column("JS\n95 %" if noisy else "JS", justify="right", no_wrap=True)
    if noisy or aucs:
        table.add_column("chance", no_wrap=True)
    table.add_column("appear\n(clean to suspect, %)", no_wrap=True)
    table.add_column("vanish", no_wrap=True)
    rows = [
        (_name(one, found.mean_output_kl), one.lens, aucs.get((one.layer, one.head)))
        for one in found.heads[:most]
    ]
    for name, change, auc in [
        *rows,
        ("model", found.model, found.detection.model_contrast.auc if found.detection else None),
    ]:
        cells = [name, "\n".join(_divergence(change))]
        if noisy or aucs:
            cells.append("\n".join(_chance(change, auc)))
        table.add_row(*cells, _tokens(change.appear), _tokens(change.vanish))
    console.print(table)
    if found.detection:
        console.print()
        _show_detection(found, console)
    show(*_references(found), *(f"note: {known}" for known in found.notes))


def _name(one: "HeadChange", mean_output_kl: float | None) -> str:
    """Layer and head, and its KL."""
    above = ">" if mean_output_kl is not None and one.lens_kl > mean_output_kl else ""
    return f"{label(one.layer, one.head, one.says_nothing)}\n{above}{one.lens_kl:.2f}"


def _references(found: "Comparison") -> "Iterator[str]":
    """What KL and JS are to be held against."""
    yield from kl_reference(found.mean_output_kl)
    if meaning := note((one.layer, one.head) for one in found.heads if one.says_nothing):
        yield meaning
    if found.model.noise is not None:
        yield "p adj: for the largest change of any head, the larger of two:"
        yield f"by {found.resamples:,} relabellings and by {found.more_draws:,} sign flips"
    if found.spread_ratio is not None and not 1 / UNEQUAL < found.spread_ratio < UNEQUAL:
        yield f"readings of suspect prompts spread {found.spread_ratio:.2g} times as much as those of clean"
        yield "ones: p holds if they are not skewed"


def _divergence(change: "ReadingChange") -> list[str]:
    noise = change.noise
    interval = [] if noise is None else [f"{noise.low_of_interval:.4f}-{noise.high_of_interval:.4f}"]
    return [f"{change.divergence:.4f}", *interval]


def _chance(change: "ReadingChange", auc: float | None) -> list[str]:
    """What the divergence is to be seen beside."""
    lines = [] if auc is None else [f"AUC   {auc:.3f}"]
    if change.noise is None:
        return lines
    p = change.noise.p if change.noise.p_adjusted is None else change.noise.p_adjusted
    return [f"noise {change.noise.expected:.4f}", f"p adj {shown(p, 3)}", *lines]


def _tokens(changes: "list[TokenChange]") -> str:
    return "\n".join(
        f"{one.token!r} {100 * one.clean:.2g}>{100 * one.suspect:.2g}" for one in changes[:TOKENS_SHOWN]
    )


def _show_detection(found: "Comparison", console: "object") -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    judged = found.detection
    assert judged is not None and isinstance(console, Console)
    caption = (
        "AUC and balanced: 0.5 is chance\n95 %: over judged prompts, of the detectors as they were fitted"
    )
    if judged.refits:
        caption = (
            "AUC and balanced: 0.5 is chance\n"
            f"95 %: contrasts and last token over {judged.refits} refits, the others over judged prompts"
        )
    table = Table(
        caption=caption,
        title=f"detectors, judged on {judged.clean} clean and {judged.suspect} suspect prompts: {judged.judged_by}",
        box=SIMPLE,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("score", no_wrap=True)
    for name in ("AUC", "95 %", "TPR at 1 %", "at 5 %", "balanced"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in (
        ("lenses, contrast", judged.lens_contrast),
        ("lenses, anomaly", judged.lens_anomaly),
        ("unembedding, contrast", judged.unembedding_contrast),
        ("unembedding, anomaly", judged.unembedding_anomaly),
        ("model's output, contrast", judged.model_contrast),
        ("model's output, anomaly", judged.model_anomaly),
        ("length alone", judged.length),
        ("last token alone", judged.last_token),
    ):
        if one is None:
            continue
        figures = (one.tpr_at_1_percent, one.tpr_at_5_percent, one.balanced_accuracy)
        table.add_row(
            name,
            f"{one.auc:.3f}",
            f"{one.low:.3f}-{one.high:.3f}",
            *("-" if figure is None else f"{figure:.3f}" for figure in figures),
        )
    console.print(table)
