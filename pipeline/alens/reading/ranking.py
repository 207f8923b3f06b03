"""Distributions over the vocabulary -> ranked lists of tokens, and the probability of chosen terms.

In: log-probabilities of heads at positions. Out: for each, the best tokens by probability or by lift. Lift is
probability over the model's mean output, a pointwise ratio as in the plausible tokens of contrastive decoding (Li et al.,
arXiv 2210.15097): without a floor of probability it ranks noise.
Shapes: H heads, T tokens, K entries of a list, V vocabulary; `...` is any leading shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch

from alens.errors import RequestError
from alens.machine.top_tokens import top_tokens
from alens.reading.settings import LIFT, OWN_LIFT, PROBABILITY, Rank
from alens.reading.terms import Term

RANKS = get_args(Rank)
Own = tuple[torch.Tensor, torch.Tensor | None]
"""What a lens says on average: (V,) its log-probabilities for the mean z, and (V,) the standard deviation of its logits."""
NO_MASS = math.log(torch.finfo(torch.float32).tiny) + 1
"""Below this log-probability the mean output has never seen a token, and its lift is not known."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How lists are made."""

    rank: str
    """One of `RANKS`."""
    top: int
    """Entries of a list at most."""
    min_probability: float
    """Lists, but those by probability, have tokens of this probability or more. Where fewer than `top` reach it, as in a flat distribution,
    they have the `top` most probable tokens."""


def ranking(
    rank: str | None, top: int, min_probability: float, *, has_lift: bool, vocabulary: int
) -> Ranking:
    """How lists are made, checked. Without `rank`, they are by lift where there is a mean output, else by probability.

    Raises `RequestError` for a ranking that cannot be made.
    """
    if not 1 <= top <= vocabulary:
        raise RequestError(f"top is {top}: it must be in 1 .. {vocabulary}")
    if not 0 < min_probability < 1:
        raise RequestError(f"min_probability is {min_probability}: it must be above 0 and below 1")
    if rank is None:
        rank = LIFT if has_lift else PROBABILITY
    if rank not in RANKS:
        raise RequestError(f"rank {rank!r} is unknown: give {' or '.join(RANKS)}")
    if rank != PROBABILITY and not has_lift:
        raise RequestError(
            "these lenses lack the model's mean output (they were imported), so there is no lift: rank by probability"
        )
    return Ranking(rank=rank, top=top, min_probability=min_probability)


def best(
    log_probs_V: torch.Tensor, log_mean_V: torch.Tensor | None, how: Ranking, own: Own | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids and log-probabilities of the best tokens, both (..., K), from log-probabilities (..., V).

    `own` is what the lens says on average; without it, lists by own lift and z-score are by lift. The log-probability is -inf where fewer than K tokens count.
    """
    return best_scored(log_probs_V, log_mean_V, how, own)[:2]


def best_scored(
    log_probs_V: torch.Tensor, log_mean_V: torch.Tensor | None, how: Ranking, own: Own | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same, and what the lists are ordered by, (..., K): a log-probability, the log of a lift, or a z-score."""
    lists = (*log_probs_V.shape[:-1], how.top)
    log_probs_NV = log_probs_V.reshape(-1, log_probs_V.shape[-1])
    values_NK, ids_NK = top_tokens(log_probs_NV, how.top)
    scores_NK = values_NK
    if how.rank != PROBABILITY and log_mean_V is not None:
        least_N1 = values_NK[:, -1:].clamp(max=math.log(how.min_probability))
        lift_NV = _above(log_probs_NV, log_mean_V, how, own).masked_fill_(log_mean_V <= NO_MASS, -math.inf)
        lift_NV.masked_fill_(log_probs_NV < least_N1, -math.inf)
        scores_NK, ids_NK = top_tokens(lift_NV, how.top)
        values_NK = log_probs_NV.gather(-1, ids_NK).masked_fill(scores_NK == -math.inf, -math.inf)
    return ids_NK.view(lists), values_NK.view(lists), scores_NK.view(lists)


def _above(
    log_probs_NV: torch.Tensor, log_mean_V: torch.Tensor, how: Ranking, own: Own | None
) -> torch.Tensor:
    """(N, V) what lists are ordered by: how far a token stands above the mean output or the lens's own mean."""
    if own is None or how.rank == LIFT:
        return log_probs_NV - log_mean_V
    log_probs_V, deviation_V = own
    above_NV = log_probs_NV - log_probs_V
    if how.rank == OWN_LIFT or deviation_V is None:
        return above_NV
    above_NV -= (above_NV @ log_mean_V.softmax(-1))[:, None]
    return above_NV.div_(deviation_V.clamp_min(torch.finfo(torch.float32).tiny))


def term_log_probs(log_probs_V: torch.Tensor, terms: Sequence[Term]) -> torch.Tensor:
    """(..., C) log-probabilities of C terms: that of a term is the log of the summed probability of its tokens."""
    return torch.stack([log_probs_V[..., list(term.ids)].logsumexp(-1) for term in terms], dim=-1)
