"""What is judged: functions that give the logits of readings, for any rows of a part.

In: lenses with the values that they read, or a distribution that reads nothing. Out: `Readings`.
Shapes: N rows of the part, B rows of a block, H heads, E width of the values, V vocabulary.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch

from alens.evaluation.tile_figures import Affine
from alens.lens.maps import AffineMaps, LensMaps

RowLogits = Callable[[slice], torch.Tensor]
"""Rows -> their (B, V) float32 logits; any constant may be added to a row."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """One reading, or several that share some of their work: one thread takes them one after the other."""

    logits: Callable[[slice], Iterable[torch.Tensor]]
    """Rows -> the logits of each reading, as `RowLogits` gives them."""
    count: int = 1
    affine: Callable[[slice], Iterable[Affine]] | None = None
    """Rows -> the features and the map that give the same logits, of each reading; None where a reading has none."""

    @classmethod
    def one(cls, logits: RowLogits, affine: Callable[[slice], Affine] | None = None) -> Self:
        """A reading by itself."""
        return cls(
            logits=lambda rows: (logits(rows),),
            affine=None if affine is None else lambda rows: (affine(rows),),
        )


def lens_reading(maps: LensMaps, head: int, values_NE: torch.Tensor) -> Readings:
    """What the lens of one head says of its values."""
    if not isinstance(maps, AffineMaps):
        return Readings.one(lambda rows: maps.logits(head, values_NE[rows]))
    weight_FV, bias_V = maps.weight_HEV[head], maps.bias_HV[head]
    return Readings.one(
        lambda rows: maps.logits(head, values_NE[rows]),
        lambda rows: Affine(values_NE[rows], weight_FV, bias_V),
    )


def lens_readings(maps: LensMaps, values_NHE: torch.Tensor) -> list[Readings]:
    """What the lens of each head says of its values."""
    return [lens_reading(maps, head, values_NHE[:, head]) for head in range(maps.num_heads)]


def constant_reading(log_probs_V: torch.Tensor) -> Readings:
    """The same distribution at every row, such as the mean output."""
    nothing_1V = log_probs_V.new_zeros(1, len(log_probs_V))
    return Readings.one(
        lambda rows: log_probs_V.expand(rows.stop - rows.start, -1),
        lambda rows: Affine(log_probs_V.new_zeros(rows.stop - rows.start, 1), nothing_1V, log_probs_V),
    )
