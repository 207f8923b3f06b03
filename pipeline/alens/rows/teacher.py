"""What a lens is fitted to and judged by: the model's final distribution at some rows.

In: the rows' compressed targets, or their exact final residuals and the unembedding. Out: for a block of rows, the two
operations that forward KL needs: the expected value of logits under the teacher, and the teacher subtracted from
probabilities. A tile has both for some of the tokens. Dense distributions exist for one block at a time.
Shapes: N rows of a batch, B rows of a block, C tokens of a tile, J = K + M entries of a compressed target, I of these in
a tile, D d_model, V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from alens.machine import blocks
from alens.machine.device import send, send_ids
from alens.machine.products import unembed
from alens.store.cache_reader import Targets


class TeacherTile(Protocol):
    """The teacher's weights for B rows and C tokens."""

    def expect(self, logits_BC: torch.Tensor) -> torch.Tensor:
        """(B,) the weighted sum of each row's logits; over all tokens it is their mean."""

    def subtract_from(self, probs_BC: torch.Tensor) -> None:
        """Make `probs - teacher` in place: the gradient of cross-entropy with respect to logits."""


class TeacherBlock(TeacherTile, Protocol):
    """The teacher's distributions at the B rows of a block, over all tokens; each sums to 1."""

    def tile(self, columns: slice) -> TeacherTile:
        """The same rows and the tokens in `columns`. Logits and probabilities that it is given must be contiguous."""


class Teacher(Protocol):
    """The final distributions of N rows."""

    @property
    def entropies(self) -> torch.Tensor:
        """(N,) float32, nats; exact for both kinds of teacher."""

    @property
    def is_dense(self) -> bool:
        """Whether a block holds B x V numbers, so that few rows should be taken at a time."""

    def block(self, rows: slice) -> TeacherBlock:
        """The distributions of some of the rows."""


@dataclass(frozen=True)
class CompressedTeacher:
    """Top k and tail samples. Cross-entropy against this teacher and its gradient are unbiased."""

    ids_NJ: torch.Tensor
    weights_NJ: torch.Tensor
    entropies: torch.Tensor
    kept: dict[str, Any] | None = None
    """What was made of these targets, by its name; None where it is made anew."""
    is_dense = False

    def keeping(self) -> "CompressedTeacher":
        """The same teacher, whose targets are put in order once: for layers that come one after the other."""
        return replace(self, kept={})

    @classmethod
    def from_targets(cls, targets: Targets, device: torch.device) -> "CompressedTeacher":
        """The weights are the stored probabilities, then equal parts of the remaining mass for the tail samples."""
        top_NK = send(targets.log_probs_NK, device).float().exp()
        top_NK = top_NK / top_NK.sum(1, keepdim=True).clamp_min(1.0)  # float16 may round the sum above 1
        num_samples = targets.tail_ids_NM.shape[1]
        tail_N1 = (1.0 - top_NK.sum(1, keepdim=True)).clamp_min(0.0)
        ids = [send_ids(part, device) for part in (targets.ids_NK, targets.tail_ids_NM)]
        return cls(
            ids_NJ=torch.cat(ids, dim=1),
            weights_NJ=torch.cat([top_NK, (tail_N1 / num_samples).expand(-1, num_samples)], dim=1),
            entropies=send(targets.entropy_N, device),
        )

    def block(self, rows: slice) -> "CompressedBlock":
        return CompressedBlock(self.ids_NJ[rows], self.weights_NJ[rows])


@dataclass(frozen=True)
class CompressedBlock:
    """A `TeacherBlock` with J entries a row."""

    ids_BJ: torch.Tensor
    weights_BJ: torch.Tensor

    def expect(self, logits_BV: torch.Tensor) -> torch.Tensor:
        mean_B: torch.Tensor = torch.linalg.vecdot(logits_BV.gather(1, self.ids_BJ), self.weights_BJ)
        return mean_B

    def subtract_from(self, probs_BV: torch.Tensor) -> None:
        probs_BV.scatter_add_(1, self.ids_BJ, -self.weights_BJ)

    def tile(self, columns: slice) -> "CompressedTile":
        inside_BJ = (self.ids_BJ >= columns.start) & (self.ids_BJ < columns.stop)
        rows_I, entries_I = inside_BJ.nonzero(as_tuple=True)
        places_I = rows_I * (columns.stop - columns.start) + self.ids_BJ[rows_I, entries_I] - columns.start
        return CompressedTile(rows_I, places_I, self.weights_BJ[rows_I, entries_I])


@dataclass(frozen=True)
class CompressedTile:
    """A `TeacherTile` with I entries, each at its place in the flattened tile."""

    rows_I: torch.Tensor
    places_I: torch.Tensor
    weights_I: torch.Tensor

    def expect(self, logits_BC: torch.Tensor) -> torch.Tensor:
        weighted_I = logits_BC.view(-1)[self.places_I].mul_(self.weights_I)
        return logits_BC.new_zeros(len(logits_BC)).index_add_(0, self.rows_I, weighted_I)

    def subtract_from(self, probs_BC: torch.Tensor) -> None:
        probs_BC.view(-1).scatter_add_(0, self.places_I, -self.weights_I)


@dataclass(frozen=True)
class ExactTeacher:
    """The full distribution, from the final residual and the unembedding, without a forward pass."""

    final_ND: torch.Tensor
    W_U_DV: torch.Tensor
    b_U_V: torch.Tensor
    entropies: torch.Tensor
    cap: float | None = None
    """The model's logit cap."""
    kept: dict[tuple[int, int], "ExactBlock"] | None = None
    """The blocks that were made, by their first and last row; None where each is made anew."""
    is_dense = True

    def keeping(self) -> "ExactTeacher":
        """The same teacher, which makes each block once: for readings that come one layer after the other.

        It keeps as many blocks as `LOGIT_BYTES` hold.
        """
        return replace(self, kept={})

    def block(self, rows: slice) -> "ExactBlock":
        if self.kept is None:
            return self._block(rows)
        place = (rows.start, rows.stop)
        if place in self.kept:
            return self.kept[place]
        made = self._block(rows)
        if sum(block.probs_BV.nbytes for block in (made, *self.kept.values())) <= blocks.LOGIT_BYTES:
            self.kept[place] = made
        return made

    def _block(self, rows: slice) -> "ExactBlock":
        return ExactBlock(self.logits(rows).softmax(dim=-1))

    def log_probs(self, rows: slice) -> torch.Tensor:
        """(B, V) float32."""
        return self.logits(rows).log_softmax(dim=-1)

    def logits(self, rows: slice) -> torch.Tensor:
        """(B, V) float32: the model's own logits."""
        return unembed(self.final_ND[rows].float(), self.W_U_DV, self.b_U_V, self.cap)


def keeping_blocks(teacher: Teacher) -> Teacher:
    """The teacher, with what it makes of its rows kept: dense blocks, or the order of targets."""
    return teacher.keeping() if isinstance(teacher, ExactTeacher | CompressedTeacher) else teacher


@dataclass(frozen=True)
class ExactBlock:
    """A `TeacherBlock` with V entries a row."""

    probs_BV: torch.Tensor

    def expect(self, logits_BV: torch.Tensor) -> torch.Tensor:
        mean_B: torch.Tensor = torch.linalg.vecdot(logits_BV, self.probs_BV)
        return mean_B

    def subtract_from(self, probs_BV: torch.Tensor) -> None:
        probs_BV.sub_(self.probs_BV)

    def tile(self, columns: slice) -> "ExactBlock":
        return ExactBlock(self.probs_BV[:, columns])
