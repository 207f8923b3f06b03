"""The figures that a fit takes of an affine reading, in one pass over its logits, a tile at a time.

In: features of some rows, the map that reads them, and what they are held against. Out: KL, surprise and first agreement of
each row, as `sums.ReadingBlock` has them but for rounding. A tile stays in the processor's cache: two to three times as
fast as a pass for each figure over whole rows (docs/decisions/0052).
Shapes: B rows of a block, F features, A = F + 2, V vocabulary, J stored tokens; in a tile C tokens, I picked logits.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from alens.evaluation.reference import ReferenceBlock
from alens.machine import blocks
from alens.machine.logit_tiles import BITS, LogitTiles, in_bits
from alens.rows.agreement import ModelChoice
from alens.rows.teacher import TeacherTile


class Affine(NamedTuple):
    """Logits of B rows: features weight + bias."""

    features_BF: torch.Tensor
    weight_FV: torch.Tensor
    bias_V: torch.Tensor


class _Picked(NamedTuple):
    """Which of J chosen logits of each row lie in a tile, and where."""

    entries_I: torch.Tensor
    places_I: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class TiledReference:
    """What readings of B rows are held against, by tile; made once for all readings."""

    columns: list[slice]
    teachers: list[TeacherTile]
    picked: list[_Picked]
    """The model's most probable tokens, then the next token."""
    entropy_B: torch.Tensor
    first: ModelChoice
    has_next_B: torch.Tensor

    @classmethod
    def of(cls, block: ReferenceBlock, vocabulary: int) -> "TiledReference":
        """The reference of a block of rows, cut into tiles."""
        columns = blocks.slices(vocabulary, blocks.tile_size(block.entropy_B.device)[1])
        ids_BJ = torch.cat([block.first.ids_NJ, block.next_B1], dim=1)
        return cls(
            columns=columns,
            teachers=[block.teacher.tile(some) for some in columns],
            picked=[_picked(ids_BJ, some) for some in columns],
            entropy_B=block.entropy_B,
            first=block.first,
            has_next_B=block.has_next_B,
        )

    def figures(self, reading: Affine) -> torch.Tensor:
        """(3, B) float32: KL(model || reading) in nats; minus the log of the next token's probability, 0 where there is
        none; agreement of the most probable token."""
        x_BA = in_bits(reading.features_BF.float())
        tiles = LogitTiles([slice(0, len(x_BA))], self.columns, x_BA.shape[1] - 2, x_BA.device)
        sums = _TileSums(self, tiles, x_BA, reading)
        if not bool(
            sums.total_B.isfinite().all()
        ):  # some later logit is far above all those of the first tile
            x_BA[:, -1] -= sums.largest_B
            sums = _TileSums(self, tiles, x_BA, reading, shifted=True)
        logsumexp_B = sums.total_B.log2()
        share_BJ = (sums.picked_BJ[:, :-1] == sums.largest_B[:, None]) / sums.ties_B[:, None]
        return torch.stack(
            [
                (logsumexp_B - sums.expected_B) / BITS - self.entropy_B,
                torch.where(self.has_next_B, (logsumexp_B - sums.picked_BJ[:, -1]) / BITS, 0.0),
                self.first.agreement_of(share_BJ),
            ]
        )


class _TileSums:
    """What one pass over the tiles adds up, in bits; the logits are shifted by their largest in the first tile."""

    def __init__(
        self,
        reference: TiledReference,
        tiles: LogitTiles,
        x_BA: torch.Tensor,
        reading: Affine,
        *,
        shifted: bool = False,
    ) -> None:
        B = len(x_BA)
        self.total_B, self.expected_B, self.ties_B = x_BA.new_zeros(3, B)
        self.largest_B = x_BA.new_full((B,), -torch.inf)
        self.picked_BJ = x_BA.new_zeros(B, reference.first.ids_NJ.shape[1] + 1)
        made = tiles.through(x_BA, reading.weight_FV, reading.bias_V)
        beside = zip(reference.teachers, reference.picked, strict=True)
        for tile, (teacher, picked) in zip(
            made, beside, strict=False
        ):  # tiles end early when work is left out
            logits_BC = tile.logits_RC
            if tile.columns.start == 0 and not shifted:
                largest_B1 = logits_BC.amax(1, keepdim=True)
                x_BA[:, -1:] = -largest_B1
                logits_BC.sub_(largest_B1)
            self._rank(logits_BC)
            self.picked_BJ.view(-1)[picked.entries_I] = logits_BC.view(-1)[picked.places_I]
            self.expected_B += teacher.expect(logits_BC)
            self.total_B += logits_BC.exp2_().sum(1)

    def _rank(self, logits_BC: torch.Tensor) -> None:
        """The largest logit so far, and how many tokens have it."""
        here_B = logits_BC.amax(1)
        rows = (here_B >= self.largest_B).nonzero().squeeze(1)
        ties = (logits_BC[rows] == here_B[rows, None]).sum(1, dtype=torch.float32)
        more = here_B[rows] == self.largest_B[rows]
        self.ties_B[rows] = torch.where(more, self.ties_B[rows] + ties, ties)
        self.largest_B[rows] = here_B[rows]


def _picked(ids_BJ: torch.Tensor, columns: slice) -> _Picked:
    J, C = ids_BJ.shape[1], columns.stop - columns.start
    inside_BJ = (ids_BJ >= columns.start) & (ids_BJ < columns.stop)
    rows_I, entries_I = inside_BJ.nonzero(as_tuple=True)
    places_I = rows_I * C + ids_BJ[rows_I, entries_I] - columns.start
    return _Picked(rows_I * J + entries_I, places_I)
