"""How many of the model's most probable tokens are most probable in a reading too; some may be equally probable.

In: the model's stored tokens with their log-probabilities, and the logits of a reading. Out: the agreement of each
row. Equally probable tokens have no order, so none is preferred. In the reading, tokens that are tied for the last of
the k places share these places equally. In the model, any of the tokens that are tied for its last places counts. So
the model agrees with itself in full, in any dtype, and a reading in which all tokens are equal hardly agrees with it.
docs/metrics.md has the formula.
Shapes: N rows, B rows of a block, J stored tokens, K top tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Self

import torch

from alens.machine.top_tokens import top_tokens


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The k most probable next tokens of N rows, by the model."""

    k: int
    ids_NJ: torch.Tensor
    """(N, J) int64; tokens that are neither sure nor tied do not count."""
    sure_NJ: torch.Tensor
    """(N, J) bool: the token is more probable than the k-th."""
    tied_NJ: torch.Tensor
    """(N, J) bool: the token is as probable as the k-th, in the precision that is stored."""
    open_N: torch.Tensor
    """(N,) bool: more tokens may be tied than are stored."""

    @classmethod
    def of(cls, ids_NJ: torch.Tensor, log_probs_NJ: torch.Tensor, k: int, d_vocab: int) -> Self:
        """From stored targets, most probable first; `k` is at most J."""
        last_N1 = log_probs_NJ[:, k - 1 : k]
        sure_NJ, tied_NJ = log_probs_NJ > last_N1, log_probs_NJ == last_N1
        several_N = tied_NJ.sum(1) > 1
        kept = max(k, int((sure_NJ | tied_NJ).any(0).sum()))
        return cls(
            k=k,
            ids_NJ=ids_NJ[:, :kept],
            sure_NJ=sure_NJ[:, :kept],
            tied_NJ=tied_NJ[:, :kept],
            open_N=tied_NJ[:, -1] & several_N & (ids_NJ.shape[1] < d_vocab),
        )

    def rows(self, rows: slice) -> "ModelChoice":
        """The choice at some of the rows."""
        return ModelChoice(
            k=self.k,
            ids_NJ=self.ids_NJ[rows],
            sure_NJ=self.sure_NJ[rows],
            tied_NJ=self.tied_NJ[rows],
            open_N=self.open_N[rows],
        )

    def agreement(self, logits_BV: torch.Tensor, largest_BK: torch.Tensor | None = None) -> torch.Tensor:
        """(B,) float32 in 0 .. 1, for logits of the same rows; `largest_BK` is the result of `largest`, if it is at hand."""
        if largest_BK is None:
            largest_BK = largest(logits_BV, self.k)
        return self.agreement_of(shares(logits_BV, largest_BK, self.k, self.ids_NJ))

    def agreement_of(self, share_BJ: torch.Tensor) -> torch.Tensor:
        """(B,) float32 in 0 .. 1, from whether each stored token is among the reading's most probable, as `shares` says."""
        sure_B = (share_BJ * self.sure_NJ).sum(1)
        places_B = self.k - self.sure_NJ.sum(1)
        tied_B = torch.where(self.open_N, self.k - sure_B, (share_BJ * self.tied_NJ).sum(1))
        return (sure_B + torch.minimum(tied_B, places_B)) / self.k


def largest(logits_BV: torch.Tensor, k: int) -> torch.Tensor:
    """(B, k + 1) the largest logits, descending, or all V: enough to see ties for the k-th place."""
    return top_tokens(logits_BV, min(k + 1, logits_BV.shape[1]))[0]


def shares(logits_BV: torch.Tensor, largest_BK: torch.Tensor, k: int, ids_BJ: torch.Tensor) -> torch.Tensor:
    """(B, J) float32: whether each token is among the reading's k most probable: 1, 0, or its share of the last places.

    `largest_BK` are the `k` largest logits or more, descending.
    """
    last_B1 = largest_BK[:, k - 1 : k]
    above_B1 = (largest_BK[:, :k] > last_B1).sum(1, keepdim=True)
    tied_B1 = k - above_B1
    if largest_BK.shape[1] > k:
        beyond_B = largest_BK[:, k] == last_B1[:, 0]
        if bool(beyond_B.any()):
            tied_B1[beyond_B] = (logits_BV[beyond_B] == last_B1[beyond_B]).sum(1, keepdim=True)
    own_BJ = logits_BV.gather(1, ids_BJ)
    return torch.where(own_BJ == last_B1, (k - above_B1) / tied_B1, (own_BJ > last_B1).float())
