"""Sums by group -> figures of each reading, with bootstrap intervals over groups, and differences of readings.

In: `ReadingSums`. Out: `Judged`: the figures of reading q, and how one reading differs from another. One function makes
figures from sums. It takes the sums of all rows and those of every resample, so the interval belongs to the figure that
is printed. docs/metrics.md has the formulas.
Shapes: X resamples (or 1: all rows), G groups (documents or sequences), Q readings, C columns, M bins.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from alens.evaluation.sums import BINS, ENTROPY, GAPS, KL, SURPRISE, TOP1, TOP10, ReadingSums
from alens.statistics.bootstrap import RESAMPLES, Array, finite_interval, resampled_means

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
    """The mean probability of that token; None without rows."""
    accuracy: float | None
    """How often that token is the next token of the text."""


@dataclass(frozen=True, kw_only=True)
class ReadingFigures:
    """Means over held-out rows, for one reading. None where no row has a next token, or the bytes of tokens are unknown."""

    kl: float
    """Forward KL(model || reading), nats a row."""
    cross_entropy: float | None
    """Cross-entropy of the text's next token, nats; rows at the end of a sequence are left out."""
    bits_per_byte: float | None
    """The same in bits, divided by the bytes of these tokens."""
    top1_agreement: float
    """Share of rows where reading and model have the same most probable token."""
    top10_agreement: float
    """Mean share of the model's ten most probable tokens that are among the reading's ten."""
    entropy: float
    """Entropy of the reading, nats."""
    calibration_error: float | None
    """Expected calibration error of the most probable token's probability, against the text's next token."""
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    """The 95 % interval of each figure, by bootstrap over documents or sequences; None with fewer than two of them."""
    reliability: tuple[Bin, ...] = ()
    """The bins that `calibration_error` is computed from."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A figure of a lens minus that of a baseline, on the same rows: below 0, the lens is better."""

    difference: float
    interval: Interval | None
    """The 95 % interval; the same groups are drawn for both. None with fewer than two groups."""
    apart: bool
    """The two figures' own intervals do not overlap."""

    @property
    def better_apart(self) -> bool:
        """Whether the lens is better, and the two intervals do not overlap."""
        return self.difference < 0 and self.apart

    @property
    def surely_better(self) -> bool:
        """Whether the interval of the difference lies below 0."""
        return self.interval is not None and self.interval[1] < 0


class Judged:
    """The figures of all readings, and their resampled values. Attributes: `rows` and `groups`, how many there are."""

    def __init__(self, sums: ReadingSums, *, seed: int, resamples: int = RESAMPLES) -> None:
        counts_G3 = torch.stack([sums.rows_G, sums.next_G, sums.bytes_G], dim=1).cpu().numpy()
        has_rows_G = counts_G3[:, 0] > 0
        sums_GQC, counts_G3 = sums.sums_GQC.cpu().numpy()[has_rows_G], counts_G3[has_rows_G]
        self.groups, (_, Q, C) = len(sums_GQC), sums_GQC.shape
        self.rows = int(counts_G3[:, 0].sum())
        self._bins_QM2, self._gaps_QM = sums.bins_QM2.cpu().numpy(), sums_GQC[..., GAPS:].sum(axis=0)
        self._all = figures(sums_GQC.sum(axis=0)[None], counts_G3.sum(axis=0)[None])
        self._resampled: dict[str, Array] | None = None
        if self.groups > 1:
            # Means a group: rows, tokens and bytes are resampled together with the sums that they divide.
            ones_G = np.ones(self.groups)
            sums_RC = resampled_means(sums_GQC.reshape(-1, Q * C), ones_G, seed=seed, resamples=resamples)
            counts_R3 = resampled_means(counts_G3, ones_G, seed=seed, resamples=resamples)
            self._resampled = figures(sums_RC.reshape(-1, Q, C), counts_R3)

    def figures(self, q: int) -> ReadingFigures:
        """The figures of reading `q`."""
        values: dict[str, Any] = {name: self._value(name, q) for name in FIGURES}
        intervals = {name: None if values[name] is None else self._interval(name, q) for name in FIGURES}
        return ReadingFigures(**values, intervals=intervals, reliability=self._reliability(q))

    def difference(self, name: str, q: int, baseline: int) -> PairedDifference | None:
        """Figure `name` of reading `q` minus that of `baseline`; None where the figure has no value."""
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
    """(X, Q) each figure, from sums and the counts that divide them: rows, rows with a next token, bytes.

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
