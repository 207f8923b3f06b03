"""How one reading changes from clean to suspect prompts: divergence, its noise, tokens.

In: readings of prompts, (N, V), clean prompts first. Out: a `Change`.
Shapes: N prompts, P permutations or resamples, V vocabulary.
"""

from dataclasses import dataclass

import torch

from alens.reading.lensed import LensedModel
from alens.statistics import divergences, mean_readings
from alens.studies.comparison import chance
from alens.studies.comparison.settings import CompareSettings


@dataclass(frozen=True, kw_only=True)
class TokenChange:
    """One token that appears or vanishes."""

    token: str
    id: int
    clean: float
    """Its probability in the mean reading of clean prompts."""
    suspect: float
    share: float
    """Of the divergence: what this token contributes, over all."""


@dataclass(frozen=True, kw_only=True)
class SamplingNoise:
    """What finite samples say of a divergence. Nats."""

    expected: float
    """The mean divergence by chance: when labels are shuffled, or signs flipped; the larger."""
    high: float
    """The 95 % quantile of the same."""
    low_of_interval: float
    """Of the 95 % basic bootstrap interval of the divergence."""
    high_of_interval: float
    p: float
    """Share of draws that are as far apart in units of their noise, the observed one counted; the larger of shuffled
    labels and of flipped signs."""
    p_adjusted: float | None = None
    """The same for the largest change of any head; None for readings that are not ranked."""


@dataclass(frozen=True, kw_only=True)
class ReadingChange:
    """How one reading changes from clean to suspect."""

    divergence: float
    """Jensen-Shannon divergence of the mean readings, nats, at most ln 2 = 0.693."""
    kl: float
    """KL(suspect || clean) of the mean readings, nats."""
    noise: SamplingNoise | None
    """None with a single prompt on a side."""
    appear: list[TokenChange]
    """Tokens that rise, by what they contribute to the divergence."""
    vanish: list[TokenChange]

    @property
    def above_noise(self) -> float:
        """The divergence less what chance gives on average."""
        return self.divergence - (self.noise.expected if self.noise else 0.0)


class ReadingComparer:
    """Changes of readings of the same prompts, under the same draws of chance and resamples."""

    def __init__(
        self, reader: LensedModel, num_clean: int, num_suspect: int, settings: CompareSettings
    ) -> None:
        self._reader, self._num_clean, self._settings = reader, num_clean, settings
        sizes = (num_clean, num_suspect, settings.resamples, settings.seed)
        self._noisy = min(num_clean, num_suspect) >= 2
        if self._noisy:
            self._chance = chance.Chance(*sizes, paired=settings.paired)
            self._resampled = mean_readings.resampled(*sizes, paired=settings.paired)

    @property
    def more_draws(self) -> int:
        """Flipped signs beside shuffled labels."""
        return self._chance.flips if self._noisy else 0

    def change(
        self, readings_NV: torch.Tensor, noise: bool = True
    ) -> tuple[ReadingChange, chance.Draws | None]:
        """The change of one reading, clean prompts first; and what chance gives."""
        clean_V = readings_NV[: self._num_clean].double().mean(0)
        suspect_V = readings_NV[self._num_clean :].double().mean(0)
        parts_V = divergences.contributions(clean_V, suspect_V)
        total = float(parts_V.sum())
        draws, found = None, None
        if noise and self._noisy:
            draws = self._chance.draws(readings_NV)
            low, high = mean_readings.interval(total, mean_readings.under(self._resampled, readings_NV))
            alone, _ = chance.p_values([draws])
            found = SamplingNoise(
                expected=draws.expected,
                high=draws.high,
                low_of_interval=low,
                high_of_interval=high,
                p=float(alone[0]),
            )
        rises_V = suspect_V > clean_V
        change = ReadingChange(
            divergence=total,
            kl=float(divergences.kl(suspect_V, clean_V)),
            noise=found,
            appear=self._tokens(parts_V * rises_V, clean_V, suspect_V, total),
            vanish=self._tokens(parts_V * ~rises_V, clean_V, suspect_V, total),
        )
        return change, draws

    def _tokens(
        self, parts_V: torch.Tensor, clean_V: torch.Tensor, suspect_V: torch.Tensor, total: float
    ) -> list[TokenChange]:
        best = parts_V.topk(self._settings.top)
        return [
            TokenChange(
                token=self._reader.text(token),
                id=token,
                clean=float(clean_V[token]),
                suspect=float(suspect_V[token]),
                share=part / total,
            )
            for token, part in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if part > 0
        ]
