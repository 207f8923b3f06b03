"""How far the mean readings of two sets of prompts are apart, and how much of it is noise.

In: readings of prompts, (N, V), clean prompts first. Out: the Jensen-Shannon divergence of the two mean readings, in
nats, as it is and under other weights of the prompts: permuted labels, resampled prompts.
Shapes: N prompts, P permutations or resamples, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch

from alens.machine.blocks import slices, tile_size
from alens.statistics import bootstrap
from alens.statistics.bootstrap import Array
from alens.statistics.divergences import jensen_shannon


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of prompts in the two means, (P, N) each; every row sums to 1."""

    clean_PN: Array
    suspect_PN: Array


def observed(num_clean: int, num_suspect: int) -> Weights:
    """The two means as they are."""
    suspect_1N = np.repeat([[0.0, 1.0]], [num_clean, num_suspect], axis=1)
    return Weights(clean_PN=(1 - suspect_1N) / num_clean, suspect_PN=suspect_1N / num_suspect)


def permuted(num_clean: int, num_suspect: int, number: int, seed: int, *, paired: bool = False) -> Weights:
    """The means when labels are shuffled, alike for every head. In pairs, the labels of each pair are swapped or not."""
    rng = np.random.default_rng([seed, 0])
    if paired:
        swapped_PC = rng.integers(0, 2, (number, num_clean)).astype(np.float64)
        shuffled_PN = np.hstack([swapped_PC, 1 - swapped_PC])
    else:
        labels_N = np.repeat([0.0, 1.0], [num_clean, num_suspect])
        shuffled_PN = rng.permuted(np.tile(labels_N, (number, 1)), axis=1)
    return Weights(clean_PN=(1 - shuffled_PN) / num_clean, suspect_PN=shuffled_PN / num_suspect)


def resampled(num_clean: int, num_suspect: int, number: int, seed: int, *, paired: bool = False) -> Weights:
    """The means when prompts are drawn with replacement, each set by itself; with `paired`, whole pairs."""
    clean_PC = bootstrap.counts(0, number, num_clean, 2 * seed) / num_clean
    suspect_PS = clean_PC if paired else bootstrap.counts(0, number, num_suspect, 2 * seed + 1) / num_suspect
    return Weights(
        clean_PN=np.hstack([clean_PC, np.zeros((number, num_suspect))]),
        suspect_PN=np.hstack([np.zeros((number, num_clean)), suspect_PS]),
    )


def under(weights: Weights, readings_NV: torch.Tensor) -> Array:
    """(P,) the divergence of the two means, for each row of weights. Weights below 0 may make a probability negative; it
    then counts as 0."""
    device = readings_NV.device
    clean_PN, suspect_PN = (
        torch.from_numpy(weights_PN).to(device) for weights_PN in (weights.clean_PN, weights.suspect_PN)
    )
    divergence_P = torch.zeros(len(clean_PN), dtype=torch.float64, device=device)
    most_rows, most_tokens = tile_size(device)
    for tokens in slices(readings_NV.shape[1], most_tokens):
        part_NV = readings_NV[:, tokens].double()
        for rows in slices(len(divergence_P), most_rows):
            means = (weights_PN[rows] @ part_NV for weights_PN in (clean_PN, suspect_PN))
            divergence_P[rows] += jensen_shannon(*(mean_PV.clamp_min_(0.0) for mean_PV in means))
    return divergence_P.cpu().numpy()


def interval(observed: float, resampled_P: Array) -> tuple[float, float]:
    """The basic bootstrap interval, at 95 %, not below 0.

    Two finite samples are further apart than the distributions they are drawn from, and resamples are further apart
    still, by about as much. The basic interval, 2 observed - quantile, takes that off; the percentile interval would add
    it twice.
    """
    low, high = bootstrap.interval(resampled_P)
    return max(0.0, 2 * observed - high), max(0.0, 2 * observed - low)
