"""How far apart two sets of prompts are by chance, and p-values of many heads.

In: readings of prompts, (N, V), clean prompts first. Out: `Draws` under two kinds of chance; a p-value is
the larger of the two (docs/decisions/0034):
- labels are shuffled, those of a pair within it. Exact where clean and suspect prompts are alike, whatever their
  distribution;
- signs are flipped: each reading keeps its distance from the mean of its set or changes sides, around the mean of all
  (the wild bootstrap). Each set keeps its spread. The two of a pair flip together.
What is compared is the divergence in units of the noise that the spread within the sets gives it: a few prompts that
spread far are apart by chance.
Source: Westfall and Young, "Resampling-Based Multiple Testing" (1993), for the largest statistic over heads.
Shapes: N prompts, K kinds of chance, P draws, Q = P + 1 with the observed one first, H heads, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alens.machine.blocks import slices, tile_size
from alens.statistics import mean_readings
from alens.statistics.bootstrap import Array
from alens.statistics.mean_readings import Weights
from alens.statistics.signs import flips

TIE = 1e-9
"""How far rounding may move two sums of the same numbers apart, relative."""

FLOOR = 1e-12
"""Added to the noise, in units of the spread of all prompts: all prompts of a set may read exactly alike."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One reading under each kind of chance, shuffled labels first."""

    divergence: list[Array]
    """K times (P,), nats."""
    statistic: list[Array]
    """K times (Q,): what p-values compare."""
    spread_ratio: float | None = None
    """The spread of suspect readings divided by that of clean ones; None where either is 0."""

    @property
    def expected(self) -> float:
        """The mean divergence by chance, of the kind that gives more. Nats."""
        return max(float(drawn_P.mean()) for drawn_P in self.divergence)

    @property
    def high(self) -> float:
        """The 95 % quantile by chance, of the kind that gives more. Nats."""
        return max(float(np.quantile(drawn_P, 0.95)) for drawn_P in self.divergence)


class Chance:
    """The same draws for every reading of the same prompts."""

    def __init__(
        self, num_clean: int, num_suspect: int, number: int, seed: int, *, paired: bool = False
    ) -> None:
        self._sizes, self._paired = (num_clean, num_suspect), paired
        self._shuffled = mean_readings.permuted(num_clean, num_suspect, number, seed, paired=paired)
        self._flipped = flipped(num_clean, num_suspect, number, seed, paired=paired)

    @property
    def flips(self) -> int:
        """How many sets of signs there are: drawn ones, or all."""
        return len(self._flipped.clean_PN)

    def draws(self, readings_NV: torch.Tensor) -> Draws:
        """What chance gives for one reading, clean prompts first."""
        noise = NoiseEstimate(readings_NV, self._sizes, paired=self._paired)
        first_1 = mean_readings.under(noise.observed, readings_NV) / noise.for_labels(noise.observed)
        shuffled_P, flipped_P = (
            mean_readings.under(weights, readings_NV) for weights in (self._shuffled, self._flipped)
        )
        return Draws(
            spread_ratio=noise.spread_ratio,
            divergence=[shuffled_P, flipped_P],
            statistic=[
                np.concatenate([first_1, shuffled_P / noise.for_labels(self._shuffled)]),
                np.concatenate([first_1, flipped_P / noise.for_flips(self._flipped)]),
            ],
        )


def flipped(num_clean: int, num_suspect: int, number: int, seed: int, *, paired: bool = False) -> Weights:
    """Weights of the two means when each reading keeps or flips its distance from the mean of its set, around the mean
    of all. The two readings of a pair flip together.

    Distances from a mean of k readings are too small by a factor of sqrt((k - 1) / k), which is corrected here. Weights
    may be below 0.
    """
    sizes, total = (num_clean, num_suspect), num_clean + num_suspect
    signs_PN = np.tile(flips(num_clean, number, seed), 2) if paired else flips(total, number, seed)
    means = []
    for start, size in zip((0, num_clean), sizes, strict=True):
        own = slice(start, start + size)
        signs_PC = signs_PN[:, own] * np.sqrt(size / (size - 1))
        weights_PN = np.full(signs_PN.shape, 1 / total)
        weights_PN[:, own] += (signs_PC - signs_PC.mean(axis=1, keepdims=True)) / size
        means.append(weights_PN)
    return Weights(clean_PN=means[0], suspect_PN=means[1])


class NoiseEstimate:
    """How far apart two means are by chance, from the spread of the readings within each set, or of the differences of
    pairs. Nats, to second order."""

    def __init__(self, readings_NV: torch.Tensor, sizes: tuple[int, int], *, paired: bool = False) -> None:
        self.observed = mean_readings.observed(*sizes)
        self._sizes, self._paired = sizes, paired
        gram_NN = _products(readings_NV)
        clean, suspect = (
            _variance(gram_NN[: sizes[0], : sizes[0]]),
            _variance(gram_NN[sizes[0] :, sizes[0] :]),
        )
        self.spread_ratio = float(np.sqrt(suspect / clean)) if min(clean, suspect) > 0 else None
        if paired:
            gram_NN = np.subtract(*np.split(gram_NN, 2))
            gram_NN = np.subtract(*np.split(gram_NN, 2, axis=1))
        self._gram_NN = gram_NN
        self._floor = FLOOR * float(np.trace(gram_NN)) / len(gram_NN)

    def for_labels(self, weights: Weights) -> Array:
        """(P,) the noise for sets of prompts, which have weights of 1 / size."""
        squares_N = np.diag(self._gram_NN)
        return self._noise(weights, [np.abs(weights_PN) @ squares_N for weights_PN, _ in self._sets(weights)])

    def for_flips(self, weights: Weights) -> Array:
        """(P,) the noise for flipped distances, whose squares stay the same."""
        squares_N, squares = np.diag(self._gram_NN), []
        for weights_1N, size in self._sets(self.observed):
            within_1 = np.abs(weights_1N) @ squares_N - self._mean_square(weights_1N)
            squares.append(within_1 * size / (size - 1))
        return self._noise(weights, squares)

    def _sets(self, weights: Weights) -> list[tuple[Array, int]]:
        """The weights within each set, and its size; the differences of pairs are one set."""
        if self._paired:
            size = self._sizes[0]
            return [((weights.suspect_PN - weights.clean_PN)[:, size:], size)]
        return list(zip((weights.clean_PN, weights.suspect_PN), self._sizes, strict=True))

    def _noise(self, weights: Weights, squares: Sequence[Array]) -> Array:
        noise_P = np.full(len(weights.clean_PN), self._floor)
        for (weights_PN, size), squares_P in zip(self._sets(weights), squares, strict=True):
            noise_P += np.maximum(squares_P - self._mean_square(weights_PN), 0.0) / (size - 1)
        return np.where(noise_P > 0, noise_P, 1.0)

    def _mean_square(self, weights_PN: Array) -> Array:
        """(P,) the squared distance of a mean from the mean of all, or from 0 for pairs."""
        square_P: Array = ((weights_PN @ self._gram_NN) * weights_PN).sum(axis=1)
        return square_P


def _variance(gram_CC: Array) -> float:
    """The variance of one set, from the products of its readings."""
    return float(np.trace(gram_CC) - gram_CC.mean(0).sum()) / (len(gram_CC) - 1)


def _products(readings_NV: torch.Tensor) -> Array:
    """(N, N) products of readings about their mean m.

    Their unit makes the Jensen-Shannon divergence of two readings that are near the square of their distance: the sum
    over tokens of (c - s)^2 / 8 m.
    """
    gram_NN = torch.zeros(2 * (len(readings_NV),), dtype=torch.float64, device=readings_NV.device)
    for tokens in slices(readings_NV.shape[1], tile_size(readings_NV.device)[1]):
        part_NV = readings_NV[:, tokens].double()
        mean_V = part_NV.mean(0)
        part_NV = (part_NV - mean_V) / (8 * mean_V.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        gram_NN += part_NV @ part_NV.T
    products_NN: Array = gram_NN.cpu().numpy()
    return products_NN


def p_values(draws: Sequence[Draws]) -> tuple[Array, Array]:
    """(H,) p-values of each reading alone, and (H,) adjusted for all: the larger over the kinds of chance."""
    kinds = [
        _p_values_of_one_kind(np.stack(statistics, axis=1))
        for statistics in zip(*(one.statistic for one in draws), strict=True)
    ]
    alone, adjusted = zip(*kinds, strict=True)
    return np.maximum.reduce(alone), np.maximum.reduce(adjusted)


def _p_values_of_one_kind(rows_QH: Array) -> tuple[Array, Array]:
    """(H,) how often a draw is as large as the observed value, for each head alone; and (H,) how often the largest of
    any head is, standardised. The observed row counts as one draw, so no p-value is 0."""
    alone_H = (rows_QH >= rows_QH[0] * (1 - TIE)).mean(axis=0)
    scale_H = rows_QH.std(axis=0)
    standard_QH = (rows_QH - rows_QH.mean(axis=0)) / np.where(scale_H > 0, scale_H, 1.0)
    largest_Q = standard_QH.max(axis=1)
    adjusted_H = (largest_Q[:, None] >= standard_QH[0] - TIE * np.abs(standard_QH[0])).mean(axis=0)
    return alone_H, adjusted_H
