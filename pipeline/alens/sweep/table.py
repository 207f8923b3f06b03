"""The table of a sweep: for each variant what it changed, how good its lenses are, how sure that is, what it cost.

In: a sweep's directory with the variants that are finished. Out: a `SweepTable`, and its cells as text.
Intervals are from a percentile bootstrap over held-out documents or sequences; a difference is paired, because the same
ones are drawn for both variants.
Shapes: G groups (documents or sequences), H heads, R resamples.
"""

import dataclasses
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.lens.marks import label, note
from alens.pictures import numbers
from alens.pictures.numbers import Interval, fixed, signed
from alens.result import Result
from alens.statistics.bootstrap import LEVEL, RESAMPLES, Array, interval
from alens.statistics.groups import said as said_groups
from alens.sweep import sweep_json
from alens.sweep.result import VariantResult, check_rows, read_result


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadRow:
    """One head of one variant."""

    layer: int
    head: int
    kl: float
    interval: Interval | None
    cross_entropy: float
    top1_agreement: float
    says_nothing: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantRow:
    """One variant that is finished. Figures are None where it has failed."""

    name: str
    settings: dict[str, Any]
    """The settings in which the variants of the sweep differ."""
    failed: str | None
    kl: float | None = None
    """Held-out forward KL, nats a row, mean over the variant's heads."""
    interval: Interval | None = None
    mean_output_kl: float | None = None
    """KL of the mean output, a lens that ignores its input, on the same rows; None in results of earlier versions."""
    difference: float | None = None
    """`kl` minus that of the variant that all others are compared with."""
    difference_interval: Interval | None = None
    heads: tuple[HeadRow, ...] = ()
    rows_seen: int = 0
    steps: int = 0
    seconds: float = 0.0
    converged: int = 0

    @property
    def worst(self) -> HeadRow | None:
        """The head with the largest KL."""
        return max(self.heads, key=lambda head: head.kl, default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTable(Result):
    """All finished variants of a sweep, in the order of its configuration."""

    rows: tuple[VariantRow, ...]
    missing: tuple[str, ...]
    """Variants that are not finished."""
    against: str | None
    """The variant that all are compared with."""
    sequences: int
    """Held-out sequences."""
    intervals_over: str
    """What resamples draw: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many of these there are."""
    held_out_rows: int

    def headline(self) -> str:
        """How many variants are finished, and the best of them."""
        finished = [row for row in self.rows if row.kl is not None]
        best = min(finished, key=lambda row: row.kl or 0.0, default=None)
        said_best = "" if best is None else f", lowest mean KL {fixed(best.kl)} nats by {best.name}"
        return f"{len(self.rows)} variants finished, {len(self.missing)} missing{said_best}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "level": LEVEL, "resamples": RESAMPLES}

    def telling(self) -> list[dict[str, Any]]:
        """One row a variant, the lowest mean KL first; those that failed last."""
        rows = sorted(self.rows, key=lambda row: (row.kl is None, row.kl or 0.0))
        return [
            {"variant": row.name, "kl": row.kl, "mean_output_kl": row.mean_output_kl, "failed": row.failed}
            for row in rows
        ]

    def records(self) -> list[dict[str, Any]]:
        """One record for each head of each variant: the lines of heads.csv."""
        records = []
        for row in self.rows:
            for head in row.heads:
                low, high = head.interval or (None, None)
                figures = dataclasses.asdict(head)
                del figures["interval"]
                beside = {"kl_low": low, "kl_high": high, "mean_output_kl": row.mean_output_kl}
                records.append({"variant": row.name, **figures, **beside})
        return records


def build(out: Path, *, against: str | None = None) -> SweepTable:
    """The table of a sweep's directory; `against` names the variant to compare with, by default the best.

    Raises `RequestError` for a name that no finished variant has, `DamageError` for a damaged result.
    """
    asked = sweep_json.read(out)["variants"]
    results = {name: result for name in asked if (result := read_result(out / name)) is not None}
    good = {name: result for name, result in results.items() if result.failed is None}
    if against is not None and against not in good:
        raise RequestError(
            f"{out} has no finished variant {against} to compare with: it has {', '.join(good) or 'none yet'}"
        )
    check_rows(out, good)
    best = min(good, key=lambda name: float(good[name].kl_H.mean()), default=None)
    differing = _differing(asked)
    resampled = {name: result.resampled() for name, result in good.items()}
    other = against or best
    rows = []
    for name, result in results.items():
        settings = {field: asked[name][field] for field in differing}
        if result.failed is not None or other is None:
            rows.append(
                VariantRow(name=name, settings=settings, failed=result.failed, seconds=result.seconds)
            )
        else:
            base = None if name == other else (good[other], resampled[other])
            rows.append(_row(name, settings, result, resampled[name], base))
    first = good[other] if other else VariantResult()
    return SweepTable(
        rows=tuple(rows),
        missing=tuple(name for name in asked if name not in results),
        against=other,
        sequences=len(first.rows_G) if first.sequences is None else first.sequences,
        intervals_over=first.intervals_over,
        groups=len(first.rows_G),
        held_out_rows=int(first.rows_G.sum()),
    )


def _row(
    name: str,
    settings: dict[str, Any],
    result: VariantResult,
    kl_RH: Array | None,
    base: tuple[VariantResult, Array | None] | None,
) -> VariantRow:
    kl = float(result.kl_H.mean())
    difference, difference_interval, groups = None, None, len(result.rows_G)
    if base is not None:
        difference = kl - float(base[0].kl_H.mean())
        if kl_RH is not None and base[1] is not None:
            difference_interval = interval(kl_RH.mean(axis=1) - base[1].mean(axis=1), groups=groups)
    return VariantRow(
        name=name,
        settings=settings,
        failed=None,
        kl=kl,
        interval=None if kl_RH is None else interval(kl_RH.mean(axis=1), groups=groups),
        mean_output_kl=result.mean_output_kl,
        difference=difference,
        difference_interval=difference_interval,
        heads=_heads(result, kl_RH),
        rows_seen=result.rows_seen,
        steps=result.steps,
        seconds=result.seconds,
        converged=result.converged,
    )


def _heads(result: VariantResult, kl_RH: Array | None) -> tuple[HeadRow, ...]:
    return tuple(
        HeadRow(
            layer=layer,
            head=head,
            kl=float(result.kl_H[place]),
            interval=None if kl_RH is None else interval(kl_RH[:, place], groups=len(result.rows_G)),
            cross_entropy=result.cross_entropy[place],
            top1_agreement=result.top1_agreement[place],
            says_nothing=bool(result.says_nothing) and result.says_nothing[place],
        )
        for place, (layer, head) in enumerate(result.heads)
    )


def _differing(asked: dict[str, dict[str, Any]]) -> list[str]:
    """The settings that are not the same for all variants."""
    every = list(asked.values())
    return [field for field in every[0] if any(one[field] != every[0][field] for one in every)]


# As text


def cells(table: SweepTable, *, settings: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for people; with `settings`, those in which the variants differ have columns."""
    names = list(table.rows[0].settings) if settings and table.rows else []
    headings = ["variant", *names, "KL", "95 % interval", "mean output", "difference", "95 % interval"]
    return [*headings, "worst head", "rows seen", "steps", "s", "converged"], [
        [row.name, *(setting_text(row.settings[name]) for name in names), *_figures(row)]
        for row in table.rows
    ]


def _figures(row: VariantRow) -> list[str]:
    worst = row.worst
    if row.kl is None or worst is None:
        return ["failed", "", "", "", "", "", "", "", fixed(row.seconds, 1), ""]
    above = ">" if row.mean_output_kl is not None and worst.kl > row.mean_output_kl else ""
    return [
        fixed(row.kl, 4),
        _span(row.interval),
        "" if row.mean_output_kl is None else fixed(row.mean_output_kl, 4),
        "" if row.difference is None else signed(row.difference, 4),
        _span(row.difference_interval, sign=True),
        f"{label(worst.layer, worst.head, worst.says_nothing)}: {above}{fixed(worst.kl, 4)}",
        f"{row.rows_seen:,}",
        f"{row.steps:,}",
        fixed(row.seconds, 1),
        f"{row.converged}",
    ]


def _span(ends: Interval | None, *, sign: bool = False) -> str:
    return "" if ends is None else numbers.interval(ends, 4, sign=sign)


def setting_text(value: Any) -> str:
    """A setting, for people."""
    if value is None:
        return "default"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in value.items()) or "none"
    return str(value)


def notes(table: SweepTable) -> list[str]:
    """The lines below the table."""
    lines = []
    if table.against:
        lines.append(
            f"Held-out KL in nats, mean over heads, on {table.held_out_rows:,} rows of {table.sequences:,} sequences, "
            "beside that of the mean output, which looks at nothing; > is above it. "
            f"{said_groups(table.intervals_over, table.groups)}, {RESAMPLES:,} resamples. Difference to {table.against}, paired."
        )
    for row in table.rows:
        if meaning := note((head.layer, head.head) for head in row.heads if head.says_nothing):
            lines.append(f"{row.name}: {meaning}")
    lines += [f"{row.name} has failed: {row.failed}" for row in table.rows if row.failed]
    if table.missing:
        total = len(table.rows) + len(table.missing)
        lines.append(
            f"{len(table.missing)} of {total} variants are not finished: {', '.join(table.missing[:5])}{' ...' if len(table.missing) > 5 else ''}"
        )
    return lines
