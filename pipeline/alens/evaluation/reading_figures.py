"""Sums by group -> figures of each reading, with bootstrap intervals over groups, and differences of readings.

In: `ReadingSums`. Out: `Judged`: figures of reading q, and how one reading differs from another. One function makes
figures from sums; it makes them of all rows and of every resample, so an interval is of the figure that is printed.
docs/metrics.md has the formulas.
Shapes: X resamples (or 1: all rows), G groups (documents or sequences), Q readings, C columns, M bins.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.evaluation.sums import BINS, ENTROPY, GAPS, KL, SURPRISE, TOP1, TOP10, ReadingSums
from alens.statistics.bootstrap import RESAMPLES, finite_interval, resampled_means

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

FIGURES = (
    "kl",
    "cross_entropy",
    "bits_per_byte",
    "top1_agreement",
    "top10_agreement",
    "entropy",
    "calibration_error",
)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Rows whose most probable token has a probability in (low, high]."""

    low: float
    high: float
    rows: int
    confidence: float | None
    """Its mean probability; None without rows."""
    accuracy: float | None
    """How often that token is the text's."""


@dataclass(frozen=True, kw_only=True)
class ReadingFigures:
    """Means over held-out rows, of one reading. None: no row has a next token, or nobody knows the tokens' bytes."""

    kl: float
    """Forward KL(model || reading), nats a row."""
    cross_entropy: float | None
    """Of the text's next token, nats; rows at the end of a sequence are left out."""
    bits_per_byte: float | None
    """The same in bits, over the bytes of those tokens."""
    top1_agreement: float
    """Share of rows where reading and model have the same most probable token."""
    top10_agreement: float
    """Mean share of the model's ten most probable tokens that are among the reading's ten."""
    entropy: float
    """Of the reading, nats."""
    calibration_error: float | None
    """Expected calibration error of the most probable token's probability, against the text's next token."""
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    """95 % of each figure, by bootstrap over documents or sequences; None with fewer than two."""
    reliability: tuple[Bin, ...] = ()
    """What `calibration_error` is made of."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A lens's figure less that of a baseline on the same rows: below 0, the lens is better."""

    difference: float
    interval: Interval | None
    """Paired: the same groups are drawn for both."""
    apart: bool
    """The two figures' own intervals do not overlap."""

    @property
    def better_apart(self) -> bool:
        """The lens is better, and the intervals lie apart."""
        return self.difference < 0 and self.apart

    @property
    def surely_better(self) -> bool:
        """The paired interval lies below 0."""
        return self.interval is not None and self.interval[1] < 0


class Judged:
    """Figures of all readings, and their resampled values."""

    def __init__(self, sums: ReadingSums, *, seed: int, resamples: int = RESAMPLES) -> None:
        def taken(name: str) -> Array:
            found: Array = getattr(sums, name).cpu().numpy()
            return found

        used_G = taken("rows_G") > 0
        sums_GQC = taken("sums_GQC")[used_G]
        counts_G3 = np.stack([taken(name)[used_G] for name in ("rows_G", "next_G", "bytes_G")], axis=1)
        self.groups, (_, Q, C) = len(sums_GQC), sums_GQC.shape
        self.rows = int(counts_G3[:, 0].sum())
        self._bins_QM2, self._gaps_QM = taken("bins_QM2"), sums_GQC[..., GAPS:].sum(axis=0)
        self._all = figures(sums_GQC.sum(axis=0)[None], counts_G3.sum(axis=0)[None])
        self._resampled: dict[str, Array] | None = None
        if self.groups > 1:
            # over means a group: rows, tokens and bytes are resampled with the sums that they divide
            ones_G = np.ones(self.groups)
            sums_RC = resampled_means(sums_GQC.reshape(-1, Q * C), ones_G, seed=seed, resamples=resamples)
            counts_R3 = resampled_means(counts_G3, ones_G, seed=seed, resamples=resamples)
            self._resampled = figures(sums_RC.reshape(-1, Q, C), counts_R3)

    def figures(self, q: int) -> ReadingFigures:
        """Of reading `q`."""
        values: dict[str, Any] = {name: self._value(name, q) for name in FIGURES}
        intervals = {name: None if values[name] is None else self._interval(name, q) for name in FIGURES}
        return ReadingFigures(**values, intervals=intervals, reliability=self._reliability(q))

    def difference(self, name: str, q: int, baseline: int) -> PairedDifference | None:
        """Of figure `name`; None where it has no value."""
        value, other = self._value(name, q), self._value(name, baseline)
        if value is None or other is None:
            return None
        mine, theirs = self._interval(name, q), self._interval(name, baseline)
        paired = None
        if self._resampled is not None:
            resampled_RQ = self._resampled[name]
            paired = finite_interval(resampled_RQ[:, q] - resampled_RQ[:, baseline], groups=self.groups)
        apart = mine is not None and theirs is not None and (mine[1] < theirs[0] or theirs[1] < mine[0])
        return PairedDifference(difference=value - other, interval=paired, apart=apart)

    def _value(self, name: str, q: int) -> float | None:
        value = float(self._all[name][0, q])
        return value if math.isfinite(value) else None

    def _interval(self, name: str, q: int) -> Interval | None:
        return (
            None
            if self._resampled is None
            else finite_interval(self._resampled[name][:, q], groups=self.groups)
        )

    def _reliability(self, q: int) -> tuple[Bin, ...]:
        rows_M, right_M = self._bins_QM2[q].T
        confident_M = right_M + self._gaps_QM[q]
        return tuple(
            Bin(
                low=m / BINS,
                high=(m + 1) / BINS,
                rows=int(rows_M[m]),
                confidence=float(confident_M[m] / rows_M[m]) if rows_M[m] else None,
                accuracy=float(right_M[m] / rows_M[m]) if rows_M[m] else None,
            )
            for m in range(BINS)
        )


def figures(sums_XQC: Array, counts_X3: Array) -> dict[str, Array]:
    """(X, Q) of each figure, from sums and the counts (rows, rows with a next token, bytes) that divide them.

    Not a number where a count is 0.
    """
    rows_X1, next_X1, bytes_X1 = counts_X3.T[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "kl": sums_XQC[..., KL] / rows_X1,
            "cross_entropy": sums_XQC[..., SURPRISE] / next_X1,
            "bits_per_byte": sums_XQC[..., SURPRISE] / (math.log(2) * bytes_X1),
            "top1_agreement": sums_XQC[..., TOP1] / rows_X1,
            "top10_agreement": sums_XQC[..., TOP10] / rows_X1,
            "entropy": sums_XQC[..., ENTROPY] / rows_X1,
            "calibration_error": np.abs(sums_XQC[..., GAPS:]).sum(axis=-1) / next_X1,
        }
