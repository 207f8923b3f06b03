"""All figures of many readings, summed by group, a block of rows at a time.

In: readings (functions that give the logits of some rows), the rows' teacher, the model's most probable tokens, the
text's next tokens. Out: `ReadingSums`: for each group and reading, sums over rows of what docs/metrics.md defines.
Logits exist for one reading and one block of rows at a time; a teacher's block is made once for all readings.
Shapes: N rows, B rows of a block, G sequences, Q readings, F columns, K top tokens, M bins of confidence, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from alens.machine.blocks import row_blocks, slices
from alens.machine.products import fast_float32
from alens.machine.side_by_side import each
from alens.rows.agreement import ModelChoice, largest, shares
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import Teacher, TeacherBlock

Reading = Callable[[slice], torch.Tensor]
"""Rows -> their (B, V) float32 logits; any constant may be added to a row."""

KL, SURPRISE, TOP1, TOP10, ENTROPY = range(5)
"""Columns of the sums. After them stand M columns: confidence less right answers of the rows of each bin."""
CONFIDENCE, RIGHT = 5, 6
"""Further values of a row: probability of the most probable token, and whether it is the text's, or its share of that where several are."""

BINS = 15
"""Of equal width in 0 .. 1, as Guo et al. (arXiv 1706.04599) have them: each holds its upper end."""

STRETCH_ROWS = 4096
"""Rows whose values are kept before they are added up: 34 MB for 300 readings."""


@dataclass(frozen=True, kw_only=True)
class JudgedRows:
    """What readings of N rows are judged by."""

    teacher: Teacher
    first: ModelChoice
    """The model's most probable next token."""
    several: ModelChoice
    """Its ten most probable ones, or as many as are stored."""
    next_ids_N: torch.Tensor
    """The text's next token, or NO_NEXT_TOKEN."""
    next_bytes_N: torch.Tensor
    """Its bytes; 0 where there is none."""
    groups_N: torch.Tensor
    """Which of the G groups."""


class ReadingSums:
    """Running sums, float64. Attributes: `sums_GQF`, `bins_QM2` (rows, and rows that were right), and by sequence
    `rows_G`, `next_G` (rows with a next token) and `bytes_G` (of those tokens)."""

    def __init__(self, num_readings: int, num_groups: int, device: torch.device) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.sums_GQF = zeros(num_groups, num_readings, RIGHT - 1 + BINS)
        self.bins_QM2 = zeros(num_readings, BINS, 2)
        self.rows_G, self.next_G, self.bytes_G = (zeros(num_groups) for _ in range(3))

    @fast_float32()
    def add(
        self,
        readings: Sequence[Reading],
        judged: JudgedRows,
        after_block: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Add rows; the readings are in the order of the sums. On a CPU, a thread takes a reading. `after_block` is
        called with the rows of each block."""
        device, groups_N = self.rows_G.device, judged.groups_N
        has_next_N = judged.next_ids_N != NO_NEXT_TOKEN
        self.rows_G.index_add_(0, groups_N, torch.ones_like(groups_N, dtype=torch.float64))
        self.next_G.index_add_(0, groups_N, has_next_N.double())
        self.bytes_G.index_add_(0, groups_N, judged.next_bytes_N.double())
        for stretch in slices(len(groups_N), STRETCH_ROWS):
            size = stretch.stop - stretch.start
            values_QNF = torch.empty(len(readings), size, RIGHT + 1, device=device)
            for within in row_blocks(size, device):
                rows = slice(stretch.start + within.start, stretch.start + within.stop)
                block = judged.teacher.block(rows)

                def judge(
                    q: int,
                    rows: slice = rows,
                    block_QBF: torch.Tensor = values_QNF[:, within],
                    block: TeacherBlock = block,
                ) -> None:
                    block_QBF[q] = row_values(readings[q](rows), block, judged, rows)

                each(judge, len(readings), device)
                after_block(rows.stop - rows.start)

            def sum_up(q: int, stretch: slice = stretch, values_QNF: torch.Tensor = values_QNF) -> None:
                self._sum_up(q, values_QNF[q], groups_N[stretch], has_next_N[stretch])

            each(sum_up, len(readings), device)

    def _sum_up(
        self, q: int, values_NF: torch.Tensor, groups_N: torch.Tensor, has_next_N: torch.Tensor
    ) -> None:
        values_NF = values_NF.double()
        values_NF[~has_next_N, SURPRISE] = 0.0
        confidence_N, right_N = values_NF[:, CONFIDENCE], values_NF[:, RIGHT]
        bins_N = bin_of(confidence_N)
        gaps_NM = torch.zeros(len(values_NF), BINS, dtype=torch.float64, device=values_NF.device)
        gaps_NM.scatter_(1, bins_N[:, None], ((confidence_N - right_N) * has_next_N)[:, None])
        self.sums_GQF[:, q].index_add_(0, groups_N, torch.cat([values_NF[:, :CONFIDENCE], gaps_NM], dim=1))
        counted_N2 = torch.stack([has_next_N.double(), right_N * has_next_N], dim=1)
        self.bins_QM2[q].index_add_(0, bins_N, counted_N2)


def bin_of(confidence_N: torch.Tensor) -> torch.Tensor:
    """(N,) the number of the bin ((m / M, (m + 1) / M]) that holds a probability."""
    return (confidence_N * BINS).ceil().long().sub(1).clamp(0, BINS - 1)


def row_values(logits_BV: torch.Tensor, block: TeacherBlock, judged: JudgedRows, rows: slice) -> torch.Tensor:
    """(B, 7) float32: the columns KL to RIGHT of some rows; SURPRISE and RIGHT mean nothing without a next token."""
    first, several = judged.first.rows(rows), judged.several.rows(rows)
    next_B1 = judged.next_ids_N[rows].clamp_min(0)[:, None]
    largest_BK = largest(logits_BV, several.k)
    largest_B1 = largest_BK[:, :1]
    weights_BV = torch.sub(logits_BV, largest_B1).exp_()
    total_B = weights_BV.sum(-1)
    logsumexp_B = largest_B1.squeeze(1) + total_B.log()
    next_B = logits_BV.gather(1, next_B1).squeeze(1)
    return torch.stack(
        [
            logsumexp_B - block.expect(logits_BV) - judged.teacher.entropies[rows],
            logsumexp_B - next_B,
            first.agreement(logits_BV, largest_BK),
            several.agreement(logits_BV, largest_BK),
            logsumexp_B - torch.linalg.vecdot(weights_BV, logits_BV) / total_B,
            total_B.reciprocal(),
            shares(logits_BV, largest_BK, 1, next_B1).squeeze(1),
        ],
        dim=1,
    )
