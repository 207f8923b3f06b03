"""Cross-entropy of many heads and its gradients in PyTorch, a tile of logits at a time, on any device.

In: features, an affine map for each head, a teacher, and which gradients are wanted. Out: losses and gradients, float32.
Tiles fit into the processor's cache, so logits are made twice: first for their logsumexp, then for the probabilities
(6 F V flop for each row and head, docs/decisions/0015).
Shapes: H heads, U heads with a loss, N rows, F features, V vocabulary; in a tile R rows, C tokens; A = F + 2: the bias and the row's shift are
two more features, so that a product gives logits ready for `exp2`.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch

from alens.machine import blocks
from alens.machine.logit_tiles import BITS, LogitTiles, in_bits
from alens.machine.products import fast_float32, onednn_is_exact
from alens.machine.side_by_side import side_by_side
from alens.rows.teacher import Teacher, TeacherTile

Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""The gradients of features (H, N, F), weight (H, F, V) and bias (H, V)."""


class Wanted(NamedTuple):
    """Which gradients are asked for."""

    features: bool = False
    weight: bool = False
    bias: bool = False


@fast_float32()
def loss_and_gradients(
    features_UNF: torch.Tensor,
    weight_HFV: torch.Tensor,
    bias_HV: torch.Tensor,
    teacher: Teacher,
    wanted: Wanted,
    heads: Sequence[int] | None = None,
) -> tuple[torch.Tensor, Gradients]:
    """(U,) mean losses over the rows, and their gradients. `heads` are the U heads of the features; None for all."""
    U, N, F = features_UNF.shape
    (H, _, V), device = weight_HFV.shape, features_UNF.device
    heads = range(H) if heads is None else heads
    loss_U = torch.zeros(U, device=device)
    grad_features, grad_weight, grad_bias = sums = tuple(
        torch.zeros(shape, device=device) if asked else None
        for asked, shape in zip(wanted, ((U, N, F), (H, F, V), (H, V)), strict=True)
    )
    for group in blocks.slices(N, blocks.teacher_rows(device) if teacher.is_dense else N):
        taught = _Taught(teacher, group, V, device)

        def add_head(place: int, taught: _Taught = taught, group: slice = group) -> None:
            tiles, head = _Tiles(taught, F), heads[place]
            mine = _HeadTiles(tiles, features_UNF[place, group].float(), weight_HFV[head], bias_HV[head])
            loss_U[place] += mine.cross_entropy() / N
            if any(wanted):
                mine.add_gradients(
                    None if grad_features is None else grad_features[place, group],
                    None if grad_weight is None else grad_weight[head],
                    None if grad_bias is None else grad_bias[head],
                    scale=1.0 / N,
                )

        if device.type == "cpu" and onednn_is_exact():  # MKL has one number of threads for the whole process
            side_by_side(add_head, U)
        else:
            for place in range(U):
                add_head(place)
    return loss_U, sums  # type: ignore[return-value]  # a tuple of three, made from three shapes


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    map_AC: torch.Tensor
    logits_RC: torch.Tensor
    teacher: TeacherTile


class _Taught:
    """The tiles of a group of rows, and the teacher's part of each, which is the same for every head."""

    def __init__(self, teacher: Teacher, group: slice, V: int, device: torch.device) -> None:
        most_rows, most_columns = blocks.tile_size(device)
        self.rows, self.columns = (
            blocks.slices(group.stop - group.start, most_rows),
            blocks.slices(V, most_columns),
        )
        taught = [teacher.block(slice(group.start + r.start, group.start + r.stop)) for r in self.rows]
        self.teachers = [[block.tile(columns) for block in taught] for columns in self.columns]
        self.device = device


class _Tiles:
    """The tiles for one head, with the teacher's part of each."""

    def __init__(self, taught: _Taught, F: int) -> None:
        self.taught = taught
        self.tiles = LogitTiles(taught.rows, taught.columns, F, taught.device)

    def through(self, x_NA: torch.Tensor, weight_FV: torch.Tensor, bias_V: torch.Tensor) -> Iterator[_Tile]:
        """Each tile with its logits; the next one overwrites them."""
        tiles = self.tiles.through(x_NA, weight_FV, bias_V)
        teachers = chain.from_iterable(self.taught.teachers)
        for tile, teacher in zip(tiles, teachers, strict=False):  # tiles end early when work is left out
            yield _Tile(*tile, teacher)


class _HeadTiles:
    """One head on a group of rows: first `cross_entropy`, then `add_gradients`."""

    def __init__(
        self, tiles: _Tiles, features_NF: torch.Tensor, weight_FV: torch.Tensor, bias_V: torch.Tensor
    ) -> None:
        self.tiles, self.features_NF, self.map = tiles, features_NF, (weight_FV, bias_V)
        self.x_NA = in_bits(features_NF)

    def cross_entropy(self) -> torch.Tensor:
        """The sum over rows, in nats. After this, the `exp2` of a tile are probabilities."""
        sums_N, expected_N = self._pass(shifted=False)
        if not bool(sums_N.isfinite().all()):  # some later logit is far above all those of the first tile
            self._shift_by_the_largest()
            sums_N, expected_N = self._pass(shifted=True)
        self.x_NA[:, -1] -= sums_N.log2()
        return (sums_N.log2() - expected_N).sum() / BITS

    def _pass(self, *, shifted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Each row's sum of `exp2` of shifted logits, at least 1, and their mean under the teacher.

        A row is shifted by its largest logit in the first tile; later tiles come shifted from the product.
        """
        sums_N, expected_N = self.x_NA.new_zeros(2, len(self.x_NA))
        for rows, columns, _, logits_RC, teacher in self.tiles.through(self.x_NA, *self.map):
            if columns.start == 0 and not shifted:
                largest_R1 = logits_RC.amax(1, keepdim=True)
                self.x_NA[rows, -1:] = -largest_R1
                logits_RC.sub_(largest_R1)
            expected_N[rows] += teacher.expect(logits_RC)
            sums_N[rows] += logits_RC.exp2_().sum(1)
        return sums_N, expected_N

    def _shift_by_the_largest(self) -> None:
        self.x_NA[:, -1] = 0.0
        largest_N = self.x_NA.new_full((len(self.x_NA),), -torch.inf)
        for tile in self.tiles.through(self.x_NA, *self.map):
            largest_N[tile.rows] = torch.maximum(largest_N[tile.rows], tile.logits_RC.amax(1))
        self.x_NA[:, -1] = -largest_N

    def add_gradients(
        self,
        grad_features_NF: torch.Tensor | None,
        grad_weight_FV: torch.Tensor | None,
        grad_bias_V: torch.Tensor | None,
        *,
        scale: float,
    ) -> None:
        """Add `scale` times the gradients of the sum over rows to the sums that are given."""
        scaled_FN = (self.features_NF * scale).T.contiguous()
        for rows, columns, map_AC, logits_RC, teacher in self.tiles.through(self.x_NA, *self.map):
            errors_RC = logits_RC.exp2_()
            teacher.subtract_from(errors_RC)
            if grad_weight_FV is not None:
                grad_weight_FV[:, columns].addmm_(scaled_FN[:, rows], errors_RC)
            if grad_bias_V is not None:
                grad_bias_V[columns].add_(errors_RC.sum(0), alpha=scale)
            if grad_features_NF is not None:
                grad_features_NF[rows].addmm_(errors_RC, map_AC[:-2].T, alpha=scale)
