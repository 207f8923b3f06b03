"""Final residuals -> compressed targets, a block of rows at a time.

In: the final residual after the last layer norm, (N, D), and the unembedding. Out: the k most probable
next tokens with their log-probabilities, logsumexp and entropy of the whole distribution, m draws from
outside the top k, and the summed distribution. Logits are held for one block of rows only.

The draws stand for the tail: each for 1/m of its mass, which makes cross-entropy against the target
unbiased (the idea of "Sparse Logit Sampling", arXiv 2503.16870, beside an exact head).
Shapes: N rows, D d_model, K top-k, M tail samples, V vocabulary.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class TargetBlock:
    """The targets of consecutive rows, on the model's device."""

    ids_NK: torch.Tensor
    log_probs_NK: torch.Tensor
    logsumexp_N: torch.Tensor
    entropy_N: torch.Tensor
    tail_ids_NM: torch.Tensor


def compress(
    final_ND: torch.Tensor,
    W_U_DV: torch.Tensor,
    b_U_V: torch.Tensor,
    uniforms_NM: torch.Tensor,
    k: int,
    counted_N: torch.Tensor,
    output_V: torch.Tensor,
) -> TargetBlock:
    """Compress the distributions of one block of rows.

    `uniforms_NM` are float64 in [0, 1), one for each tail sample; `output_V` (float64) is added the
    distributions of the rows where `counted_N` is true.
    """
    logits_NV = torch.addmm(b_U_V, final_ND, W_U_DV).float()
    probs_NV = torch.softmax(logits_NV, dim=-1)
    top_logits_NK, ids_NK = logits_NV.topk(k, dim=-1)
    # The largest probability is at least 1/V, so its logarithm loses nothing.
    logsumexp_N = top_logits_NK[:, 0] - probs_NV.gather(1, ids_NK[:, :1]).squeeze(1).log()
    output_V += counted_N.to(probs_NV.dtype) @ probs_NV
    entropy_N = logsumexp_N - torch.linalg.vecdot(probs_NV, logits_NV)
    return TargetBlock(
        ids_NK=ids_NK,
        log_probs_NK=top_logits_NK - logsumexp_N[:, None],
        logsumexp_N=logsumexp_N,
        entropy_N=entropy_N,
        tail_ids_NM=sample_tail(probs_NV, ids_NK, uniforms_NM),
    )


def sample_tail(probs_NV: torch.Tensor, ids_NK: torch.Tensor, uniforms_NM: torch.Tensor) -> torch.Tensor:
    """(N, M) ids drawn with replacement from outside `ids_NK`, in proportion to probability.

    Inverse transform sampling; overwrites `probs_NV`. Where nothing is left outside the top k, the
    least probable of the top k stands in: its weight, the tail mass, is zero.
    """
    cdf_NV = probs_NV.scatter_(1, ids_NK, 0.0).cumsum(-1)
    total_N1 = cdf_NV[:, -1:]
    below = torch.nextafter(total_N1, torch.zeros_like(total_N1))
    thresholds_NM = torch.minimum((uniforms_NM * total_N1).float(), below)
    # right=True: the first entry above the threshold, so an entry of probability zero is never drawn.
    drawn_NM = torch.searchsorted(cdf_NV, thresholds_NM, right=True)
    return torch.where(total_N1 > 0, drawn_NM.clamp_(max=cdf_NV.shape[1] - 1), ids_NK[:, -1:])
