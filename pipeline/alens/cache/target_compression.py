"""Final residuals -> compressed targets, a block of rows at a time.

In: the final residual after the last layer norm, (N, D), and the unembedding. Out: the k most probable next tokens with
their log-probabilities, logsumexp and entropy of the whole distribution, m draws from outside the top k, and the
summed distribution. Logits are held for one block of rows only; they are made for many rows at once, and reduced for
few.

Each draw stands for 1/m of the tail's mass, which makes cross-entropy against the target unbiased (the idea of "Sparse
Logit Sampling", arXiv 2503.16870, beside an exact top k).

A row of V numbers is read as few times as possible (docs/decisions/0012). For this it is seen as G x W numbers, W
groups of G tokens each: group w holds the tokens w, w + W, w + 2W, ..., so that maxima and sums of all groups come from
whole rows of W numbers.
Shapes: N rows, D d_model, K top-k, M tail samples, V vocabulary, P = G W >= V padded vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from alens.machine.blocks import row_blocks
from alens.machine.products import unembed
from alens.store.schema import CacheSettings

GROUP = 64
"""G, the tokens of a group."""

PAD = -1e30
"""The logit that pads a vocabulary to P: below any other, and finite, so that 0 times it is 0."""


@dataclass(frozen=True, kw_only=True)
class TargetBlock:
    """The targets of consecutive rows, on the model's device."""

    ids_NK: torch.Tensor
    log_probs_NK: torch.Tensor
    logsumexp_N: torch.Tensor
    entropy_N: torch.Tensor
    tail_ids_NM: torch.Tensor


def logits_dtype(settings: CacheSettings) -> Literal["float32"] | None:
    """What a new plan says of the logits of its targets. In the 16 bits of a model they have few values, and ties among
    the most probable tokens (docs/decisions/0068)."""
    return None if settings.dtype == "float32" else "float32"


class Workspace:
    """Memory for one block of rows, reused for the next: fresh memory costs a page fault every 4 kB."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def buffer(self, name: str, num_rows: int, padded: int, device: torch.device) -> torch.Tensor:
        """(num_rows, padded) float32, not initialised."""
        kept = self._buffers.get(name)
        if kept is None or len(kept) < num_rows or kept.shape[1] != padded or kept.device != device:
            kept = self._buffers[name] = torch.empty(num_rows, padded, dtype=torch.float32, device=device)
        return kept[:num_rows]


def compress(
    final_ND: torch.Tensor,
    W_U_DV: torch.Tensor,
    b_U_V: torch.Tensor,
    uniforms_NM: torch.Tensor,
    k: int,
    counted_N: torch.Tensor,
    output_V: torch.Tensor,
    workspace: Workspace | None = None,
    *,
    cap: float | None = None,
) -> TargetBlock:
    """Compress the distributions of one block of rows (`blocks.logit_blocks`).

    `uniforms_NM` are float64 in [0, 1), one for each tail sample. The distributions of the rows where `counted_N` is
    true are added to `output_V` (float64). To compress many blocks, pass the same `workspace` each time. `cap` is the model's
    logit cap.
    """
    workspace = workspace or Workspace()
    logits_NP = _logits(final_ND, W_U_DV, b_U_V, cap, workspace)
    parts = [
        _reduce(logits_NP[rows], uniforms_NM[rows], k, counted_N[rows], output_V, workspace)
        for rows in row_blocks(len(logits_NP), logits_NP.device)
    ]
    return TargetBlock(
        ids_NK=torch.cat([part.ids_NK for part in parts]),
        log_probs_NK=torch.cat([part.log_probs_NK for part in parts]),
        logsumexp_N=torch.cat([part.logsumexp_N for part in parts]),
        entropy_N=torch.cat([part.entropy_N for part in parts]),
        tail_ids_NM=torch.cat([part.tail_ids_NM for part in parts]),
    )


def _reduce(
    logits_NP: torch.Tensor,
    uniforms_NM: torch.Tensor,
    k: int,
    counted_N: torch.Tensor,
    output_V: torch.Tensor,
    workspace: Workspace,
) -> TargetBlock:
    """The targets of rows whose logits fit into the processor's caches; overwrites the logits."""
    group_max_NW = _groups(logits_NP).amax(1)
    max_N1 = group_max_NW.amax(1, keepdim=True)
    top_logits_NK, ids_NK = _top(logits_NP, group_max_NW, k)
    logits_NP -= max_N1
    weights_NP = workspace.buffer("weights", len(logits_NP), logits_NP.shape[1], logits_NP.device)
    torch.exp(logits_NP, out=weights_NP)  # probabilities, not yet divided by their sum
    sum_N1 = _groups(weights_NP).sum(1).sum(1, keepdim=True)
    log_sum_N1 = sum_N1.log()
    output_V += ((counted_N / sum_N1[:, 0]) @ weights_NP)[: len(output_V)]
    logits_NP *= weights_NP  # in place, because vecdot would allocate
    entropy_N = log_sum_N1[:, 0] - logits_NP.sum(1) / sum_N1[:, 0]
    return TargetBlock(
        ids_NK=ids_NK,
        log_probs_NK=top_logits_NK - max_N1 - log_sum_N1,
        logsumexp_N=(max_N1 + log_sum_N1)[:, 0],
        entropy_N=entropy_N,
        tail_ids_NM=sample_tail(weights_NP, ids_NK, uniforms_NM),
    )


def _logits(
    final_ND: torch.Tensor,
    W_U_DV: torch.Tensor,
    b_U_V: torch.Tensor,
    cap: float | None,
    workspace: Workspace,
) -> torch.Tensor:
    """(N, P) float32 logits, padded with PAD."""
    vocabulary = len(b_U_V)
    padded = -(-vocabulary // GROUP) * GROUP
    logits_NP = workspace.buffer("logits", len(final_ND), padded, final_ND.device)
    logits_NP[:, vocabulary:] = PAD
    unembed(final_ND, W_U_DV, b_U_V, cap, out=logits_NP[:, :vocabulary])
    return logits_NP


def _groups(values_NP: torch.Tensor) -> torch.Tensor:
    """The values by group, (N, G, W), without a copy."""
    return values_NP.view(len(values_NP), GROUP, -1)


def _top(logits_NP: torch.Tensor, group_max_NW: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest logits of each row, descending, and their ids, (N, K) each.

    They lie in the k groups with the largest maxima: no logit of another group is larger than these k maxima.
    """
    num_groups = group_max_NW.shape[1]
    if num_groups < 4 * k:
        top = logits_NP.topk(k, dim=-1)
        return top.values, top.indices
    groups_NK = group_max_NW.topk(k, dim=-1, sorted=False).indices
    members_NGK = _members(logits_NP, groups_NK)
    values_NK, at_NK = members_NGK.flatten(1).topk(k, dim=-1)
    member_NK, group_NK = at_NK // k, at_NK % k
    return values_NK, member_NK * num_groups + groups_NK.gather(1, group_NK)


def _members(values_NP: torch.Tensor, groups_NM: torch.Tensor) -> torch.Tensor:
    """All members of some groups, (N, G, M)."""
    return _groups(values_NP).gather(2, groups_NM[:, None, :].expand(-1, GROUP, -1))


def sample_tail(weights_NV: torch.Tensor, ids_NK: torch.Tensor, uniforms_NM: torch.Tensor) -> torch.Tensor:
    """(N, M) ids drawn with replacement from outside `ids_NK`, in proportion to `weights_NV`.

    Inverse transform sampling, first of a group, then of its member. Overwrites `weights_NV`, which may have any scale.
    Where nothing is left outside the top k, every draw is the least probable of the top k: the tail's mass, by which
    draws are weighted, is zero then.
    """
    weights_NV.scatter_(1, ids_NK, 0.0)
    missing = -weights_NV.shape[1] % GROUP
    weights_NP = torch.nn.functional.pad(weights_NV, (0, missing)) if missing else weights_NV
    cdf_NW = _groups(weights_NP).sum(1).cumsum(1)
    total_N1 = cdf_NW[:, -1:]
    thresholds_NM = torch.minimum((uniforms_NM * total_N1).float(), _below(total_N1))
    # right=True finds the first entry above the threshold, so that a group without mass is never drawn.
    groups_NM = torch.searchsorted(cdf_NW, thresholds_NM, right=True).clamp_(max=cdf_NW.shape[1] - 1)
    before_NM = torch.where(groups_NM > 0, cdf_NW.gather(1, (groups_NM - 1).clamp_(min=0)), 0.0)
    within_NGM = _members(weights_NP, groups_NM).cumsum(1)
    rest_NM = torch.minimum(thresholds_NM - before_NM, _below(within_NGM[:, -1]))
    member_NM = (within_NGM <= rest_NM[:, None]).sum(1)
    drawn_NM = (member_NM * cdf_NW.shape[1] + groups_NM).clamp_(max=weights_NV.shape[1] - 1)
    return torch.where(total_N1 > 0, drawn_NM, ids_NK[:, -1:])


def draw_order(vocabulary: int, device: torch.device) -> torch.Tensor:
    """(V,) all ids in the order in which `sample_tail` sums up their weights, group by group."""
    groups = -(-vocabulary // GROUP)
    ids = torch.arange(GROUP * groups, device=device).view(GROUP, groups).T.flatten()
    return ids[ids < vocabulary]


def _below(values: torch.Tensor) -> torch.Tensor:
    """The next smaller number of a positive one: there is always an entry above such a threshold."""
    return torch.nextafter(values, torch.zeros_like(values))
