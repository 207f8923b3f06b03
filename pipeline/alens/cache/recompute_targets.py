"""Stored targets, compared with the distribution that the model's logits give.

In: logits of some rows, computed again, and their stored targets. Out: differences of `targets/ids`, `log_probs`,
`logsumexp`, `entropy` and `tail_ids`, and how many draws moved. All but the logits is float64.

An error d of the logits moves a log-probability by 2d at most, and logsumexp by d. It moves the entropy by 2d times the
standard deviation of the log-probability, to which comes what float32 cancels in logsumexp minus the mean logit. It
moves the edges of the tail's distribution by 2d of its mass, to which comes the rounding of a float32 sum of V numbers.
Shapes: N rows, K top-k, M tail samples, V vocabulary.
"""

import math

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.cache import tolerance
from alens.cache.array_differences import LargestDifferences
from alens.cache.target_compression import draw_order, sample_tail
from alens.statistics.divergences import entropy
from alens.store.cache_reader import Targets
from alens.store.model_record import FLOAT32_UNIT
from alens.store.schema import Plan

NO_MASS = 2.0**-100
"""A tail with less mass may be empty in float32; then every draw is the last token of the top k."""

Stored = dict[str, torch.Tensor]


def target_rows(targets: Targets, rows: slice, device: torch.device) -> Stored:
    """Some rows of targets, as tensors: ids int64, numbers float64."""
    arrays = {
        "ids": targets.ids_NK.astype(np.int64),
        "log_probs": targets.log_probs_NK.astype(np.float64),
        "logsumexp": targets.logsumexp_N.astype(np.float64),
        "entropy": targets.entropy_N.astype(np.float64),
        "tail_ids": targets.tail_ids_NM.astype(np.int64),
    }
    return {name: torch.from_numpy(values[rows]).to(device) for name, values in arrays.items()}


def compare(
    plan: Plan,
    logits_NV: torch.Tensor,
    stored: Stored,
    source_N: npt.NDArray[np.int64],
    row_N: npt.NDArray[np.int64],
    differences: LargestDifferences,
) -> int:
    """Add the differences, and return how many draws moved. `source_N` are the numbers of rows before permuting."""
    error_N = tolerance.for_logits(logits_NV, plan).double()
    logits_NV = logits_NV.double()
    logsumexp_N = logits_NV.logsumexp(1)
    log_probs_NV = logits_NV - logsumexp_N[:, None]
    probs_NV = log_probs_NV.exp()
    float32 = FLOAT32_UNIT * logits_NV.abs().amax(1)
    differences.add(
        "targets/logsumexp", (stored["logsumexp"] - logsumexp_N).abs(), error_N + 4 * float32, row_N
    )
    entropy_N = entropy(log_probs_NV, probs_NV)
    spread_N = (probs_NV * (log_probs_NV + entropy_N[:, None]) ** 2).sum(1).sqrt()
    allowed_N = 2 * error_N * spread_N + 16 * float32
    differences.add("targets/entropy", (stored["entropy"] - entropy_N).abs(), allowed_N, row_N)
    ids_NK, outside_N = _valid(stored["ids"], logits_NV.shape[1])
    chosen_NK = log_probs_NV.gather(1, ids_NK)
    allowed_NK = 2 * error_N[:, None] + tolerance.HALF_UNIT * chosen_NK.abs() + tolerance.SMALLEST_HALF_UNIT
    differences.add("targets/log_probs", (stored["log_probs"] - chosen_NK).abs(), allowed_NK, row_N)
    disorder_N = _disorder(log_probs_NV, ids_NK, chosen_NK)
    disorder_N[outside_N | _repeats(ids_NK)] = math.inf
    differences.add("targets/ids", disorder_N, 2 * error_N, row_N)
    return _tail(plan, probs_NV, ids_NK, stored["tail_ids"], error_N, source_N, row_N, differences)


def _valid(ids: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids clamped to the vocabulary, and which rows had ids outside of it."""
    return ids.clamp(0, vocabulary - 1), ((ids < 0) | (ids >= vocabulary)).any(1)


def _repeats(ids_NK: torch.Tensor) -> torch.Tensor:
    in_order = ids_NK.sort(1).values
    return (in_order[:, 1:] == in_order[:, :-1]).any(1)


def _disorder(log_probs_NV: torch.Tensor, ids_NK: torch.Tensor, chosen_NK: torch.Tensor) -> torch.Tensor:
    """(N,) by how much the order is violated: a token is more probable than one stored before it, or than any stored
    one although it is not stored itself."""
    best_outside_N1 = log_probs_NV.scatter(1, ids_NK, -math.inf).amax(1, keepdim=True)
    following = torch.cat([chosen_NK[:, 1:], best_outside_N1], dim=1)
    return (following - chosen_NK).clamp_min(0.0).amax(1)


def _tail(
    plan: Plan,
    probs_NV: torch.Tensor,
    ids_NK: torch.Tensor,
    stored_NM: torch.Tensor,
    error_N: torch.Tensor,
    source_N: npt.NDArray[np.int64],
    row_N: npt.NDArray[np.int64],
    differences: LargestDifferences,
) -> int:
    settings, vocabulary = plan.settings, probs_NV.shape[1]
    uniforms = [
        randomness.row_uniforms(int(row), 1, settings.tail_samples, settings.seed, randomness.TAIL_SAMPLES)
        for row in source_N
    ]
    uniforms_NM = torch.from_numpy(np.concatenate(uniforms)).to(probs_NV.device)
    drawn_NM = sample_tail(probs_NV.float(), ids_NK, uniforms_NM)
    drawn_from_NM, outside_N = _valid(stored_NM, vocabulary)
    order_V = draw_order(vocabulary, probs_NV.device)
    place_V = torch.empty_like(order_V).scatter_(0, order_V, torch.arange(vocabulary, device=order_V.device))
    masses_NV = probs_NV.scatter(1, ids_NK, 0.0)[:, order_V]
    above_NV = masses_NV.cumsum(1)
    total_N1 = above_NV[:, -1:]
    at_NM = place_V[drawn_from_NM]
    high_NM, mass_NM = above_NV.gather(1, at_NM), masses_NV.gather(1, at_NM)
    threshold_NM = uniforms_NM * total_N1
    distance_NM = torch.maximum(high_NM - mass_NM - threshold_NM, threshold_NM - high_NM).clamp_min(0.0)
    distance_NM = distance_NM / total_N1.clamp_min(NO_MASS)
    among_top_NM = (drawn_from_NM[:, :, None] == ids_NK[:, None, :]).any(2)
    empty_N1 = total_N1 < NO_MASS
    stands_in_NM = empty_N1 & (drawn_from_NM == ids_NK[:, -1:])
    distance_NM = torch.where(among_top_NM, math.inf, distance_NM)
    distance_NM = torch.where(stands_in_NM | (empty_N1 & ~among_top_NM), 0.0, distance_NM)
    distance_NM[outside_N] = math.inf
    allowed_N = 2 * error_N + FLOAT32_UNIT * (8 + math.sqrt(vocabulary))
    differences.add("targets/tail_ids", distance_NM.amax(1), allowed_N, row_N)
    return int((drawn_NM != stored_NM).sum())
