"""How one reading changes from clean to suspect prompts: the divergence, its noise, and tokens.

In: readings of prompts, (N, V), clean prompts first. Out: a `ReadingChange`.
Shapes: N prompts, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from alens.reading.lensed_model import LensedModel
from alens.statistics import divergences, mean_readings
from alens.studies.comparison import chance
from alens.studies.comparison.result import HeadChange, ReadingChange, SamplingNoise, TokenChange
from alens.studies.comparison.settings import CompareSettings


class ReadingComparer:
    """Computes how readings of the same prompts change, all under the same draws of chance and the same resamples."""

    def __init__(
        self, reader: LensedModel, num_clean: int, num_suspect: int, settings: CompareSettings
    ) -> None:
        self._reader, self._num_clean = reader, num_clean
        self._top = min(settings.top, reader.lenses.record.model.d_vocab)
        sizes = (num_clean, num_suspect, settings.resamples, settings.seed)
        self._noisy = min(num_clean, num_suspect) >= 2
        if self._noisy:
            self._chance = chance.Chance(*sizes, paired=settings.paired)
            self._resampled = mean_readings.resampled(*sizes, paired=settings.paired)

    @property
    def more_draws(self) -> int:
        """How many sets of flipped signs there are beside shuffled labels."""
        return self._chance.flips if self._noisy else 0

    def change(
        self, readings_NV: torch.Tensor, noise: bool = True
    ) -> tuple[ReadingChange, chance.Draws | None]:
        """The change of one reading, clean prompts first; and what chance gives."""
        clean_V = readings_NV[: self._num_clean].double().mean(0)
        suspect_V = readings_NV[self._num_clean :].double().mean(0)
        parts_V = divergences.contributions(clean_V, suspect_V)
        total = float(parts_V.sum())
        draws = self._chance.draws(readings_NV) if noise and self._noisy else None
        rises_V = suspect_V > clean_V
        change = ReadingChange(
            divergence=total,
            kl=float(divergences.kl(suspect_V, clean_V)),
            noise=None if draws is None else self._noise(readings_NV, total, draws),
            appear=self._tokens(parts_V * rises_V, clean_V, suspect_V, total),
            vanish=self._tokens(parts_V * ~rises_V, clean_V, suspect_V, total),
        )
        return change, draws

    def _noise(self, readings_NV: torch.Tensor, divergence: float, draws: chance.Draws) -> SamplingNoise:
        low, high = mean_readings.interval(divergence, mean_readings.under(self._resampled, readings_NV))
        alone, _ = chance.p_values([draws])
        return SamplingNoise(
            expected=draws.expected,
            high=draws.high,
            low_of_interval=low,
            high_of_interval=high,
            p=float(alone[0]),
        )

    def _tokens(
        self, parts_V: torch.Tensor, clean_V: torch.Tensor, suspect_V: torch.Tensor, total: float
    ) -> list[TokenChange]:
        largest = parts_V.topk(self._top)
        return [
            TokenChange(
                token=self._reader.text(token),
                id=token,
                clean=float(clean_V[token]),
                suspect=float(suspect_V[token]),
                share=part / total,
            )
            for token, part in zip(largest.indices.tolist(), largest.values.tolist(), strict=True)
            if part > 0
        ]


def adjusted(
    changes: Sequence[HeadChange], draws: Sequence[chance.Draws | None], by: str
) -> list[HeadChange]:
    """The changes of all heads, with p-values for the largest change of any head in the reading that ranks them."""
    known = [one for one in draws if one is not None]
    if not known:
        return list(changes)
    _, adjusted_H = chance.p_values(known)
    with_p = []
    for change, p in zip(changes, adjusted_H.tolist(), strict=True):
        ranked = change.ranked(by)
        assert ranked.noise is not None
        of_reading: dict[str, Any] = {by: replace(ranked, noise=replace(ranked.noise, p_adjusted=p))}
        with_p.append(replace(change, **of_reading))
    return with_p


def spread_ratio(draws: Sequence[chance.Draws | None]) -> float | None:
    """The spread of suspect readings divided by that of clean ones: the geometric mean over heads."""
    ratios = [one.spread_ratio for one in draws if one is not None and one.spread_ratio is not None]
    return float(np.exp(np.log(ratios).mean())) if len(ratios) == len(draws) else None
