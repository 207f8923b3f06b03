"""Held-out figures of readings, a block of rows at a time.

In: values of some rows, the maps of the heads, the teacher, the next tokens of the text. Out, for each head,
sums over rows of: forward KL to the model's distribution (nats), cross-entropy of the text's next token
(nats), agreement of the most probable token with the model's. Sums add up over batches and processes.
Shapes: N rows, H heads, E d_head, V vocabulary, B rows of a block, F figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from alens.errors import DamageError
from alens.job.interruption import leave_out
from alens.lens.maps import LensMaps
from alens.machine.blocks import row_blocks
from alens.machine.products import fast_float32
from alens.machine.side_by_side import each
from alens.rows.agreement import ModelChoice
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import Teacher, TeacherBlock

LEAST_KL = -0.1
"""Nats: the tail samples of a compressed teacher leave a mean over few rows below zero, a mix-up of files does more."""


@dataclass(frozen=True, kw_only=True)
class HeadFigures:
    """Means over held-out rows, for one head."""

    kl: float
    """Forward KL(model || lens), nats a row."""
    cross_entropy: float
    """Of the text's next token under the lens, nats; rows at the end of a sequence are left out."""
    top1_agreement: float
    """Share of rows where lens and model have the same most probable next token; `agreement` says what of ties."""


def check_kl(mean_kls: Sequence[float]) -> None:
    """Raises `DamageError` where a mean KL is below zero, or not a number: targets and entropies are not of one row."""
    wrong = [kl for kl in mean_kls if not kl >= LEAST_KL]
    if wrong:
        raise DamageError(
            f"a mean KL of {wrong[0]:.3f} nats cannot be: the targets and entropies that were read do not belong to each "
            "other; see `alens verify`"
        )


@fast_float32()
def sum_of_kl(log_probs_V: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """() float64: forward KL of the teacher's rows to one distribution, such as the mean output, summed; nats."""
    total = torch.zeros((), dtype=torch.float64, device=log_probs_V.device)
    for rows in row_blocks(len(teacher.entropies), log_probs_V.device):
        entropy_B = teacher.entropies[rows]
        logits_BV = log_probs_V.expand(len(entropy_B), -1)
        kl_B = log_probs_V.logsumexp(dim=-1) - teacher.block(rows).expect(logits_BV) - entropy_B
        total += kl_B.double().sum()
    return total


class FigureSums:
    """Running sums for H heads. `values` is (H + 1, 3) float64: the last row counts rows; it may be all-reduced.

    Where groups of rows are wanted (sequences, say), `kl_GH` and `surprise_GH` are sums of KL and of the next token's
    surprise by group, `rows_G` its rows, and `next_G` those with a next token.
    """

    def __init__(self, num_heads: int, device: torch.device, num_groups: int = 0) -> None:
        self.values = torch.zeros(num_heads + 1, 3, dtype=torch.float64, device=device)
        self.kl_GH, self.surprise_GH = (
            torch.zeros(num_groups, num_heads, dtype=torch.float64, device=device) for _ in range(2)
        )
        self.rows_G, self.next_G = (
            torch.zeros(num_groups, dtype=torch.float64, device=device) for _ in range(2)
        )

    def add(
        self,
        z_NHE: torch.Tensor,
        maps: LensMaps,
        teacher: Teacher,
        choice: ModelChoice,
        next_ids_N: torch.Tensor,
        groups_N: torch.Tensor | None = None,
    ) -> None:
        """Add rows. `choice` is the model's most probable token, `next_ids_N` the text's next (or NO_NEXT_TOKEN)."""
        add_together([(self, z_NHE, maps)], teacher, choice, next_ids_N, groups_N)

    def _add_head(
        self, head: int, logits_BV: torch.Tensor, block: "_Block", groups_B: torch.Tensor | None
    ) -> None:
        logsumexp_B = logits_BV.logsumexp(dim=-1)
        kl_B = logsumexp_B - block.teacher.expect(logits_BV) - block.entropy_B
        next_B = logits_BV.gather(1, block.next_ids_B.clamp_min(0)[:, None]).squeeze(1)
        surprise_B = torch.where(block.next_ids_B != NO_NEXT_TOKEN, logsumexp_B - next_B, 0.0)
        agrees_B = block.choice.agreement(logits_BV)
        self.values[head] += torch.stack(
            [kl_B.double().sum(), surprise_B.double().sum(), agrees_B.double().sum()]
        )
        if groups_B is not None:
            self.kl_GH[:, head].index_add_(0, groups_B, kl_B.double())
            self.surprise_GH[:, head].index_add_(0, groups_B, surprise_B.double())

    def _count(self, next_ids_N: torch.Tensor, groups_N: torch.Tensor | None) -> None:
        has_next_N = next_ids_N != NO_NEXT_TOKEN
        if groups_N is not None:
            self.rows_G.index_add_(0, groups_N, torch.ones_like(groups_N, dtype=torch.float64))
            self.next_G.index_add_(0, groups_N, has_next_N.double())
        self.values[-1] += torch.tensor(
            [len(next_ids_N), int(has_next_N.sum()), len(next_ids_N)],
            dtype=torch.float64,
            device=self.values.device,
        )

    def reduce(self, over_processes: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Sums over all processes, in place."""
        for values in (self.values, self.kl_GH, self.surprise_GH, self.rows_G, self.next_G):
            if values.numel():
                over_processes(values)

    def means(self) -> list[HeadFigures]:
        """One a head. Raises `DamageError` where targets cannot be those of the rows."""
        means_HF = (self.values[:-1] / self.values[-1].clamp_min(1)).tolist()
        check_kl([kl for kl, _, _ in means_HF])
        return [HeadFigures(kl=kl, cross_entropy=ce, top1_agreement=top1) for kl, ce, top1 in means_HF]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What all heads are judged by on B rows."""

    teacher: TeacherBlock
    entropy_B: torch.Tensor
    choice: ModelChoice
    next_ids_B: torch.Tensor


@fast_float32()
def add_together(
    readings: Sequence[tuple[FigureSums, torch.Tensor, LensMaps]],
    teacher: Teacher,
    choice: ModelChoice,
    next_ids_N: torch.Tensor,
    groups_N: torch.Tensor | None = None,
    *,
    after_block: Callable[[int], None] = lambda _: None,
) -> None:
    """As `FigureSums.add`, of several layers or lenses on the same rows: (sums, z_NHE, maps) each.

    An exact teacher's block costs as much as nine heads of 64 dimensions and is made once for all of them; on a CPU a
    thread takes a head. The sums do not depend on either. `after_block` is called with the rows of each block.
    """
    heads = [(sums, z_NHE, maps, h) for sums, z_NHE, maps in readings for h in range(maps.num_heads)]
    for rows in row_blocks(len(next_ids_N), next_ids_N.device):
        block = _Block(
            teacher=teacher.block(rows),
            entropy_B=teacher.entropies[rows],
            choice=choice.rows(rows),
            next_ids_B=next_ids_N[rows],
        )
        groups_B = None if groups_N is None else groups_N[rows]

        def add(
            number: int,
            rows: slice = rows,
            block: _Block = block,
            groups_B: torch.Tensor | None = groups_B,
        ) -> None:
            if leave_out():
                return
            sums, z_NHE, maps, head = heads[number]
            sums._add_head(head, maps.logits(head, z_NHE[rows, head]), block, groups_B)

        each(add, len(heads), next_ids_N.device)
        after_block(rows.stop - rows.start)
    for sums, _, _ in readings:
        sums._count(next_ids_N, groups_N)
