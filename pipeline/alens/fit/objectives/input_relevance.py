"""`input-relevance`: which tokens of its input a head passes on. The target is the row's own context.

"Attention Lens" (arXiv 2310.16270), section 2, asks for such a lens. The target of a row is the distribution of the tokens
that the head could look at: each token of the row's sequence up to its position, counted as often as it occurs there. The
loss is forward KL to that distribution.
Shapes: N rows, T positions of a sequence.
"""

import numpy as np
import torch

from alens.fit.objectives.forward_kl import ForwardKL
from alens.fit.objectives.objective import TargetRows
from alens.machine.device import send
from alens.rows.teacher import CompressedTeacher, Teacher


class InputRelevance(ForwardKL):
    """Forward KL from the distribution of the tokens in a row's context."""

    columns = ("rows/sequence", "rows/position")

    def target(self, rows: TargetRows) -> Teacher:
        sequence, position = (rows.columns.by_name[name].astype(np.int64) for name in self.columns)
        longest = int(position.max(initial=0)) + 1
        ids_NT = rows.cache.tokens[sequence, :longest].astype(np.int64)
        seen_NT = np.arange(longest) <= position[:, None]
        weights = torch.from_numpy(seen_NT / (position[:, None] + 1.0)).float()
        entropies = _entropies(ids_NT, seen_NT)
        ids = send(ids_NT, rows.device)
        return CompressedTeacher(ids, send(weights, rows.device), send(entropies, rows.device))


def _entropies(
    ids_NT: "np.ndarray[tuple[int, int], np.dtype[np.int64]]",
    seen_NT: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]",
) -> torch.Tensor:
    """(N,) float32: the entropy in nats of the counts of each row's tokens."""
    ordered_NT = np.sort(np.where(seen_NT, ids_NT, -1), axis=1)
    starts_NT = np.ones_like(seen_NT)
    starts_NT[:, 1:] = ordered_NT[:, 1:] != ordered_NT[:, :-1]
    run_NT = np.cumsum(starts_NT, axis=1) - 1 + np.arange(len(ids_NT))[:, None] * ids_NT.shape[1]
    counts = np.bincount(run_NT[ordered_NT >= 0].ravel(), minlength=ids_NT.size).reshape(ids_NT.shape)
    share_NT = counts / seen_NT.sum(1, keepdims=True)
    terms_NT = share_NT * np.log(np.where(counts > 0, share_NT, 1.0))
    return torch.from_numpy(-terms_NT.sum(1)).float()
