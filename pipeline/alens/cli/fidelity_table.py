"""What `alens fidelity` prints: what each choice of compression keeps, costs and takes.

In: a `Fidelity`. Out: three tables, and lines.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.pictures.numbers import UNKNOWN, fixed, number_of, percent, significant, whole

if TYPE_CHECKING:
    from alens.fidelity.measure import Fidelity, TargetFigure, ZFigure
    from alens.fidelity.probe_fits import FitFigure


def show_fidelity(fidelity: "Fidelity") -> None:
    """Print a table of kept mass, one of targets, one of z, and what to know beside them."""
    from alens.cli.tables import show_table

    show_table(
        ("k", "mean", "10th percentile"),
        [(str(mass.k), fixed(mass.mean, 4), fixed(mass.percentile_10, 4)) for mass in fidelity.kept_mass],
        title=f"Kept mass: the probability of the k most probable tokens, {fidelity.rows:,} rows",
    )
    show_table(
        (
            "k",
            "m",
            "",
            "bytes\na row",
            "KL to exact,\nnats",
            "KL ratio\nof lenses, mean",
            "\nworst",
            "\nhead",
        ),
        [_target_row(form) for form in fidelity.targets],
        title="Targets: the k most probable tokens and m samples of the rest",
    )
    show_table(
        ("form", "bytes\na row", "z, %\nmean", "\nworst", "z W_O, %\nmean", "\nworst", "KL ratio\nmean", "\nworst", "\nhead"),
        [_z_row(form) for form in fidelity.z],
        title="z: root mean square error in % of the stored values, mean over heads and worst head",
        text=("form",),
    )  # fmt: skip
    show(*_notes(fidelity))


def _target_row(form: "TargetFigure") -> list[str]:
    stored = "stored" if form.stored else ""
    kl = fixed(form.kl_to_exact, 4)
    return [str(form.top_k), str(form.tail_samples), stored, f"{form.bytes_per_row:,}", kl, *_ratio(form.fit)]


def _z_row(form: "ZFigure") -> list[str]:
    errors = ["0"] * 4
    if form.error is not None:
        spreads = (form.error.z, form.error.output)
        errors = [fixed(100 * value) for spread in spreads for value in (spread.mean, spread.worst)]
    name = f"{form.name}{' (stored)' if form.stored else ''}"
    return [name, whole(form.bytes_per_row), *errors, *_ratio(form.fit)]


def _ratio(fit: "FitFigure | None") -> list[str]:
    """Mean and worst ratio, and the head that has the worst."""
    if fit is None:
        return [UNKNOWN, UNKNOWN, ""]
    return [fixed(fit.ratio.mean, 4), fixed(fit.ratio.worst, 4), fit.ratio.worst_head]


def _notes(fidelity: "Fidelity") -> Iterator[str]:
    """What stands below the tables."""
    rounding, reference, other_order = fidelity.rounding, fidelity.reference, fidelity.other_order
    if rounding is not None:
        yield (
            f"float16 log-probabilities: off by {significant(rounding.mean)} nats (largest {significant(rounding.largest)}), "
            f"KL {significant(rounding.kl)} nats"
        )
    for form in fidelity.z:
        if form.name == "int8" and form.error is not None:
            spread = form.error.spread
            yield (
                f"int8 beside the spread of z around its mean, which is what a lens reads: off by {percent(spread.mean)}, "
                f"worst {percent(spread.worst)} ({spread.worst_head})"
            )
    if fidelity.exact_teacher:
        yield (
            "KL to exact is not what a fit suffers: the samples are unbiased; the ratio says what a fit loses"
        )
    if reference is not None and other_order is not None:
        teacher = "exact teacher" if fidelity.exact_teacher else "stored targets"
        kls = reference.kl.values()
        yield (
            f"lenses: {number_of(len(fidelity.heads), 'head')} ({', '.join(fidelity.heads)}) fitted to {fidelity.train_rows:,} rows; KL ratio is "
            f"held-out KL over that of the reference (z as stored, {teacher}: {fixed(sum(kls) / len(kls), 4)} nats), judged by the "
            f"{teacher} on the same {fidelity.held_out_rows:,} rows"
        )
        yield (
            f"noise: the reference with another order of rows has ratio {fixed(other_order.ratio.mean, 4)}, "
            f"worst {fixed(other_order.ratio.worst, 4)}"
        )
    yield from fidelity.notes
