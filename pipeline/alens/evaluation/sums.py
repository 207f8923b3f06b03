"""Figures of many readings, summed over rows and over groups of rows, a block of rows at a time.

In: readings, and for the same rows the teacher, the model's most probable tokens and the text's next tokens. Out:
`ReadingSums`: sums of what docs/metrics.md defines, over all rows and, where groups of rows are given (documents, say),
over each of them. Sums add up over parts of the rows and over processes.
Logits exist for one reading and one block of rows at a time; a teacher's block is made once for all readings.
Shapes: N rows, B rows of a block, G groups, Q readings, F figures, C columns of the sums by group, K top tokens, M bins
of confidence, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from alens.errors import DamageError
from alens.evaluation.readings import Readings
from alens.evaluation.reference import Reference, ReferenceBlock
from alens.evaluation.tile_figures import TiledReference
from alens.job.interruption import leave_out
from alens.machine.blocks import row_blocks, tiled_blocks
from alens.machine.products import fast_float32
from alens.machine.side_by_side import each
from alens.rows.agreement import largest, shares
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.statistics.divergences import entropy_of_logits, kl_of_logits

KL, SURPRISE, TOP1, TOP10, ENTROPY, CONFIDENCE, RIGHT = range(7)
"""The figures of a row, which `ReadingBlock` computes."""

FEW = (KL, SURPRISE, TOP1)
"""The figures that a fit, a sweep or a transfer takes of a lens."""

ALL = (*FEW, TOP10, ENTROPY, CONFIDENCE, RIGHT)
"""The figures that `alens eval` takes. The last two are not summed, but fill the bins of a reliability diagram."""

GAPS = CONFIDENCE
"""The first of the M columns of the sums by group that hold, for each bin, confidence minus right answers of its rows."""

BINS = 15
"""Bins of equal width in 0 .. 1, each with its upper end, as in Guo et al. (arXiv 1706.04599)."""

MOST_VALUES = 2**23
"""Figures that are in memory before they are added up by group: 34 MB."""

LEAST_KL = -0.1
"""Nats: the tail samples of a compressed teacher leave a mean over few rows below zero, a mix-up of files does more."""


class ReadingBlock:
    """One reading of a block of rows: each figure is a (B,) tensor."""

    def __init__(self, logits_BV: torch.Tensor, reference: ReferenceBlock) -> None:
        self.logits_BV, self.reference = logits_BV, reference
        self.largest_BK = largest(logits_BV, 1 if reference.several is None else reference.several.k)
        self._weights_BV = torch.sub(logits_BV, self.largest_BK[:, :1]).exp_()
        self._total_B = self._weights_BV.sum(-1)
        self.logsumexp_B = self.largest_BK[:, 0] + self._total_B.log()

    def kl(self) -> torch.Tensor:
        """KL(model || reading), nats."""
        return kl_of_logits(
            self.logits_BV, self.logsumexp_B, self.reference.teacher, self.reference.entropy_B
        )

    def surprise(self) -> torch.Tensor:
        """Minus the log of the next token's probability, nats; 0 where there is no next token."""
        next_B = self.logits_BV.gather(1, self.reference.next_B1).squeeze(1)
        return torch.where(self.reference.has_next_B, self.logsumexp_B - next_B, 0.0)

    def top1(self) -> torch.Tensor:
        """Agreement of the most probable token."""
        return self.reference.first.agreement(self.logits_BV, self.largest_BK)

    def top10(self) -> torch.Tensor:
        """Agreement of the ten most probable tokens."""
        assert self.reference.several is not None  # asked for with the figures
        return self.reference.several.agreement(self.logits_BV, self.largest_BK)

    def entropy(self) -> torch.Tensor:
        """Entropy of the reading, nats."""
        return entropy_of_logits(self.logits_BV, self._weights_BV, self._total_B, self.logsumexp_B)

    def confidence(self) -> torch.Tensor:
        """Probability of the most probable token."""
        return self._total_B.reciprocal()

    def right(self) -> torch.Tensor:
        """1 where the most probable token is the text's next token, and its share where several are equally probable.
        Means nothing where there is no next token."""
        return shares(self.logits_BV, self.largest_BK, 1, self.reference.next_B1).squeeze(1)


FIGURES_OF_ROWS: tuple[Callable[[ReadingBlock], torch.Tensor], ...] = (
    ReadingBlock.kl,
    ReadingBlock.surprise,
    ReadingBlock.top1,
    ReadingBlock.top10,
    ReadingBlock.entropy,
    ReadingBlock.confidence,
    ReadingBlock.right,
)


@dataclass(frozen=True, kw_only=True)
class HeadFigures:
    """Means over held-out rows, for one head."""

    kl: float
    """Forward KL(model || lens), nats a row."""
    cross_entropy: float
    """Cross-entropy of the text's next token under the lens, nats; rows at the end of a sequence are left out."""
    top1_agreement: float
    """Share of rows where lens and model have the same most probable next token; `rows.agreement` treats ties."""


class ReadingSums:
    """Running sums of Q readings, float64.

    Attributes: `totals_QF` over all rows, and `counts` (rows, rows with a next token). By group, where `num_groups` is
    above 0: `sums_GQC`, and `rows_G`, `next_G` (rows with a next token), `bytes_G` (of those tokens). With `ALL` figures
    the columns are KL to ENTROPY and the M gaps, and `bins_QM2` counts rows, and rows that were right; else the columns
    are the figures.
    """

    def __init__(
        self, num_readings: int, device: torch.device, *, num_groups: int = 0, figures: tuple[int, ...] = FEW
    ) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.figures, self.calibrated = figures, CONFIDENCE in figures
        self.totals_QF, self.counts = zeros(num_readings, len(figures)), zeros(2)
        self.sums_GQC = zeros(num_groups, num_readings, GAPS + BINS if self.calibrated else len(figures))
        self.bins_QM2 = zeros(num_readings if self.calibrated else 0, BINS, 2)
        self.rows_G, self.next_G, self.bytes_G = (zeros(num_groups) for _ in range(3))

    @fast_float32()
    def add(
        self,
        readings: Sequence[Readings],
        reference: Reference,
        after_block: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Add rows; the readings are in the order of the sums. On a CPU, a thread takes a reading; the sums do not
        depend on that. `after_block` is called with the rows of each block."""
        device = self.totals_QF.device
        has_next_N = reference.next_ids_N != NO_NEXT_TOKEN
        first_of = [0, *accumulate(piece.count for piece in readings)]
        assert first_of[-1] == len(self.totals_QF), "as many readings as there are sums"
        by_group = reference.groups_N is not None
        tiled = self.figures == FEW and all(piece.affine is not None for piece in readings)
        for stretch, blocks in self._stretches(len(reference.next_ids_N), tiled):
            size = stretch.stop - stretch.start
            values_QFN = torch.empty(first_of[-1], len(self.figures), size if by_group else 0, device=device)
            for rows in blocks:
                if leave_out():
                    return
                block = reference.block(rows)
                tiles = TiledReference.of(block, _vocabulary_of(readings[0], rows)) if tiled else None
                within = slice(rows.start - stretch.start, rows.stop - stretch.start)

                def judge(
                    piece: int,
                    rows: slice = rows,
                    block: ReferenceBlock = block,
                    tiles: TiledReference | None = tiles,
                    values_QFB: torch.Tensor = values_QFN[:, :, within],
                ) -> None:
                    if leave_out():
                        return
                    for q, values_FB in enumerate(
                        self._values(readings[piece], rows, block, tiles), first_of[piece]
                    ):
                        self.totals_QF[q] += values_FB.double().sum(1)
                        if by_group:
                            values_QFB[q] = values_FB

                each(judge, len(readings), device)
                after_block(rows.stop - rows.start)
            if reference.groups_N is not None:

                def sum_up(
                    q: int,
                    values_QFN: torch.Tensor = values_QFN,
                    groups_N: torch.Tensor = reference.groups_N[stretch],
                    has_next_N: torch.Tensor = has_next_N[stretch],
                ) -> None:
                    self._sum_up(q, values_QFN[q].double().T.contiguous(), groups_N, has_next_N)

                each(sum_up, first_of[-1], device)
        self._count(reference, has_next_N)

    def _values(
        self, piece: Readings, rows: slice, block: ReferenceBlock, tiles: TiledReference | None
    ) -> Iterator[torch.Tensor]:
        """(F, B) the figures of each reading of a piece."""
        if tiles is not None and piece.affine is not None:
            yield from map(tiles.figures, piece.affine(rows))
            return
        for logits_BV in piece.logits(rows):
            reading = ReadingBlock(logits_BV, block)
            yield torch.stack([FIGURES_OF_ROWS[figure](reading) for figure in self.figures])

    def reduce(self, over_processes: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Sums over all processes, in place."""
        by_group = (self.sums_GQC, self.bins_QM2, self.rows_G, self.next_G, self.bytes_G)
        for values in (self.totals_QF, self.counts, *by_group):
            if values.numel():
                over_processes(values)

    def means(self) -> list[HeadFigures]:
        """The means of each reading. Raises `DamageError` where targets cannot be those of the rows."""
        num_rows, num_next = self.counts.clamp_min(1)
        counts_F = torch.stack([num_rows, num_next, num_rows])
        means_QF = (self.totals_QF[:, list(FEW)] / counts_F).tolist()
        check_kl([kl for kl, _, _ in means_QF])
        return [HeadFigures(kl=kl, cross_entropy=ce, top1_agreement=top1) for kl, ce, top1 in means_QF]

    def select(self, readings: slice) -> "ReadingSums":
        """The sums of some of the readings."""
        some = ReadingSums(0, self.totals_QF.device, figures=self.figures)
        some.totals_QF, some.counts = self.totals_QF[readings], self.counts
        some.sums_GQC, some.bins_QM2 = self.sums_GQC[:, readings], self.bins_QM2[readings]
        some.rows_G, some.next_G, some.bytes_G = self.rows_G, self.next_G, self.bytes_G
        return some

    def beside(self, other: "ReadingSums") -> "ReadingSums":
        """The sums of these readings and then of others, over the same rows."""
        both = ReadingSums(0, self.totals_QF.device, figures=self.figures)
        both.totals_QF, both.counts = torch.cat([self.totals_QF, other.totals_QF]), self.counts
        both.sums_GQC = torch.cat([self.sums_GQC, other.sums_GQC], dim=1)
        both.bins_QM2 = torch.cat([self.bins_QM2, other.bins_QM2])
        both.rows_G, both.next_G, both.bytes_G = self.rows_G, self.next_G, self.bytes_G
        return both

    def _stretches(self, num_rows: int, tiled: bool) -> Iterator[tuple[slice, list[slice]]]:
        """Rows whose figures are kept at once, and their blocks."""
        blocks = list((tiled_blocks if tiled else row_blocks)(num_rows, self.totals_QF.device))
        rows_of_values = max(1, MOST_VALUES // max(1, self.totals_QF.numel()))
        blocks_each = max(1, rows_of_values // blocks[0].stop) if blocks else 1
        for start in range(0, len(blocks), blocks_each):
            some = blocks[start : start + blocks_each]
            yield slice(some[0].start, some[-1].stop), some

    def _sum_up(
        self, q: int, values_NF: torch.Tensor, groups_N: torch.Tensor, has_next_N: torch.Tensor
    ) -> None:
        if self.calibrated:
            confidence_N, right_N = values_NF[:, CONFIDENCE], values_NF[:, RIGHT]
            bins_N = bin_of(confidence_N)
            gaps_NM = torch.zeros(len(values_NF), BINS, dtype=torch.float64, device=values_NF.device)
            gaps_NM.scatter_(1, bins_N[:, None], ((confidence_N - right_N) * has_next_N)[:, None])
            counted_N2 = torch.stack([has_next_N.double(), right_N * has_next_N], dim=1)
            self.bins_QM2[q].index_add_(0, bins_N, counted_N2)
            values_NF = torch.cat([values_NF[:, :CONFIDENCE], gaps_NM], dim=1)
        self.sums_GQC[:, q].index_add_(0, groups_N, values_NF)

    def _count(self, reference: Reference, has_next_N: torch.Tensor) -> None:
        self.counts += torch.tensor([len(has_next_N), int(has_next_N.sum())], device=self.counts.device)
        if (groups_N := reference.groups_N) is None:
            return
        self.rows_G.index_add_(0, groups_N, torch.ones_like(groups_N, dtype=torch.float64))
        self.next_G.index_add_(0, groups_N, has_next_N.double())
        if reference.next_bytes_N is not None:
            self.bytes_G.index_add_(0, groups_N, reference.next_bytes_N.double())


def _vocabulary_of(piece: Readings, rows: slice) -> int:
    """V, as affine readings have it."""
    assert piece.affine is not None  # asked for where all are affine
    return len(next(iter(piece.affine(rows))).bias_V)


def bin_of(confidence_N: torch.Tensor) -> torch.Tensor:
    """(N,) the number m of the bin (m / M, (m + 1) / M] that holds a probability."""
    return (confidence_N * BINS).ceil().long().sub(1).clamp(0, BINS - 1)


def check_kl(mean_kls: Sequence[float]) -> None:
    """Raises `DamageError` where a mean KL is below zero or not a number: targets and entropies are of different rows."""
    wrong = [kl for kl in mean_kls if not kl >= LEAST_KL]
    if wrong:
        raise DamageError(
            f"a mean KL of {wrong[0]:.3f} nats cannot be: the targets and entropies that were read do not belong to each "
            "other; see `alens verify`"
        )
