"""Entropy, Kullback-Leibler and Jensen-Shannon divergence, in nats, over the last axis: the one place that computes them.

In: distributions over the vocabulary, in the form that is at hand: probabilities, log-probabilities, logits, or a
change of logits. Each form has a function of its own, because no single function is the most precise for all of them.
Only stage one's targets and the objectives of fits compute them elsewhere, as part of what they do to whole batches.
Source of the Jensen-Shannon divergence: Lin, "Divergence Measures Based on the Shannon Entropy" (1991).
Shapes: N rows, B rows of a block, R readings, T tokens of a prompt, K tokens that are given one by one, V vocabulary.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # it imports Zarr, and `alens read` opens no cache
    from alens.rows.teacher import TeacherBlock

LARGE_CHANGE = 60.0
"""Nats above the mean change: from there exp may overflow, and tokens whose probability float32 rounds to 0 count."""


def entropy(log_probs_V: torch.Tensor, probs_V: torch.Tensor | None = None) -> torch.Tensor:
    """(...) the entropy of log-probabilities (..., V); `probs_V` are their exponentials, where they are at hand."""
    probs_V = log_probs_V.exp() if probs_V is None else probs_V
    return -(probs_V * log_probs_V).sum(-1)


def entropy_of_logits(
    logits_V: torch.Tensor, weights_V: torch.Tensor, total: torch.Tensor, logsumexp: torch.Tensor
) -> torch.Tensor:
    """(...) the entropy of softmax(logits); `weights_V` are in proportion to the probabilities, `total` is their sum."""
    weighted: torch.Tensor = torch.linalg.vecdot(weights_V, logits_V)
    return logsumexp - weighted / total


def kl(p_V: torch.Tensor, q_V: torch.Tensor) -> torch.Tensor:
    """(...) float64 KL(p || q) of probabilities."""
    p_V, q_V = p_V.double(), q_V.double()
    tiny = torch.finfo(torch.float64).tiny
    return (p_V * (p_V.clamp_min(tiny).log() - q_V.clamp_min(tiny).log())).sum(-1).clamp_min(0.0)


def kl_to_log_probs(p_V: torch.Tensor, log_q_V: torch.Tensor) -> torch.Tensor:
    """(...) KL(p || q) of probabilities and log-probabilities; tokens of no probability under p count for nothing."""
    return (torch.xlogy(p_V, p_V) - p_V * log_q_V).sum(-1)


def kl_of_log_probs(log_p_TV: torch.Tensor, log_q_RTV: torch.Tensor) -> torch.Tensor:
    """(R, T) KL(p || q) of log-probabilities, for several q; not below 0, where rounding alone would have it."""
    cross_RT = -torch.einsum("tv,rtv->rt", log_p_TV.exp(), log_q_RTV)
    return (cross_RT - entropy(log_p_TV)).clamp(min=0.0)


def kl_between_log_probs(log_p_V: torch.Tensor, log_q_V: torch.Tensor) -> torch.Tensor:
    """(...) KL(p || q) of log-probabilities of one shape; not below 0, where rounding alone would have it."""
    return (log_p_V.exp() * (log_p_V - log_q_V)).sum(-1).clamp_min(0.0)


def kl_of_logits(
    logits_BV: torch.Tensor, logsumexp_B: torch.Tensor, teacher: "TeacherBlock", entropy_B: torch.Tensor
) -> torch.Tensor:
    """(B,) KL(teacher || softmax(logits)); `entropy_B` is the teacher's. With a compressed teacher it is an unbiased
    estimate and may be below 0."""
    return logsumexp_B - teacher.expect(logits_BV) - entropy_B


def kl_with_tail(
    p_BK: torch.Tensor,
    log_p_BK: torch.Tensor,
    log_q_BK: torch.Tensor,
    tail_p_B: torch.Tensor,
    tail_q_B: torch.Tensor,
) -> torch.Tensor:
    """(B,) KL(p || q) of distributions that give K tokens one by one, and share out what is left alike."""
    kl_B = (p_BK * (log_p_BK - log_q_BK)).sum(1)
    return kl_B + torch.xlogy(tail_p_B, tail_p_B / tail_q_B)


def kl_of_change(p_NV: torch.Tensor, log_p_NV: torch.Tensor, change_NV: torch.Tensor) -> torch.Tensor:
    """(N,) KL(p || q), where q is p with its logits changed. Small changes lose no figures."""
    expected_N = (p_NV * change_NV).sum(-1)
    _, gain_N, large_N = gain(p_NV, change_NV, expected_N)
    kl_N = torch.log1p(gain_N)
    if bool(large_N.any()):
        kl_N[large_N] = (log_p_NV[large_N] + change_NV[large_N]).logsumexp(-1) - expected_N[large_N]
    return kl_N


def gain(
    p_NV: torch.Tensor, change_NV: torch.Tensor, expected_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`p (exp(c) - 1)` (N, V), its sum (N,), and for which rows it may overflow (N,); c is the change less its mean.

    KL(p || q) is log(1 + sum), where q is p with its logits changed, and q is `(p + gain) / (1 + sum)`.
    """
    centred_NV = torch.sub(change_NV, expected_N[:, None])
    large_N = ~(centred_NV.amax(-1) < LARGE_CHANGE)
    gain_NV = centred_NV.expm1_().mul_(p_NV)
    return gain_NV, gain_NV.sum(-1), large_N


def contributions(clean_V: torch.Tensor, suspect_V: torch.Tensor) -> torch.Tensor:
    """(..., V) float64, each at least 0: what a token adds to the Jensen-Shannon divergence, in nats.

    Of a token: (c ln(c / m) + s ln(s / m)) / 2 with m = (c + s) / 2. Written with r = (s - c) / (s + c), so that
    small differences lose no figures.
    """
    sum_V = clean_V + suspect_V
    r_V = (suspect_V - clean_V).div_(sum_V.clamp_min(torch.finfo(sum_V.dtype).tiny))
    return _plus_one_log(r_V).add_(_plus_one_log(r_V.neg_())).mul_(sum_V).div_(4).clamp_min_(0.0)


def _plus_one_log(r_V: torch.Tensor) -> torch.Tensor:
    """(1 + r) ln(1 + r), and 0 at r = -1. `torch.special.xlog1py` takes three times as long on a CPU."""
    return r_V.log1p().clamp_min_(torch.finfo(r_V.dtype).min).mul_(1 + r_V)


def jensen_shannon(clean_V: torch.Tensor, suspect_V: torch.Tensor) -> torch.Tensor:
    """(...) nats, over the last axis."""
    return contributions(clean_V, suspect_V).sum(-1)
