"""Figures of affine readings, a tile of logits at a time: the same as those of whole rows of logits."""

from collections.abc import Callable

import pytest
import torch

from alens.evaluation.readings import Readings
from alens.evaluation.reference import Reference
from alens.evaluation.sums import ReadingSums
from alens.evaluation.tile_figures import Affine
from alens.machine import blocks
from alens.rows.agreement import ModelChoice
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import CompressedTeacher, ExactTeacher, Teacher

N, E, D, V = 50, 3, 4, 41
CPU = torch.device("cpu")
Spoil = Callable[[torch.Tensor, torch.Tensor], None]


def nothing_else(weight_FV: torch.Tensor, bias_V: torch.Tensor) -> None:
    """Random weights."""


def all_equal(weight_FV: torch.Tensor, bias_V: torch.Tensor) -> None:
    """Every token is as probable as the others."""
    weight_FV.zero_()
    bias_V.zero_()


def tied(weight_FV: torch.Tensor, bias_V: torch.Tensor) -> None:
    """Each token has a second that is as probable, in another tile."""
    weight_FV[:, 20:40], bias_V[20:40] = weight_FV[:, :20], bias_V[:20]


def far_above(weight_FV: torch.Tensor, bias_V: torch.Tensor) -> None:
    """A late token is far more probable than all of the first tile."""
    bias_V[37] = 500.0


def teachers() -> tuple[ExactTeacher, CompressedTeacher, ModelChoice]:
    random = torch.Generator().manual_seed(1)
    final_ND, W_U_DV = torch.randn(N, D, generator=random), torch.randn(D, V, generator=random)
    log_NV = (final_ND @ W_U_DV).log_softmax(-1)
    best = log_NV.topk(6)
    entropies = -(log_NV.exp() * log_NV).sum(1)
    weights = torch.rand(N, 6, generator=random)
    log_probs_NJ = best.values.clone()
    log_probs_NJ[::3, 1] = log_probs_NJ[::3, 0]  # two tokens that the model cannot tell apart
    return (
        ExactTeacher(final_ND, W_U_DV, torch.zeros(V), entropies),
        CompressedTeacher(best.indices, weights / weights.sum(1, keepdim=True), entropies),
        ModelChoice.of(best.indices, log_probs_NJ, 1, V),
    )


@pytest.mark.parametrize("columns", [7, 20, 64])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("spoil", [nothing_else, all_equal, tied, far_above])
def test_they_are_those_of_whole_rows(
    monkeypatch: pytest.MonkeyPatch, columns: int, compressed: bool, spoil: Spoil
) -> None:
    monkeypatch.setattr(blocks, "CPU_TILE_COLUMNS", columns)
    monkeypatch.setattr(blocks, "CPU_TILE_ROWS", 16)
    random = torch.Generator().manual_seed(0)
    z_NE, weight_EV, bias_V = (torch.randn(shape, generator=random) for shape in ((N, E), (E, V), (V,)))
    spoil(weight_EV, bias_V)
    exact, few, first = teachers()
    teacher: Teacher = few if compressed else exact
    next_ids_N = torch.randint(0, V, (N,), generator=random)
    next_ids_N[::5] = NO_NEXT_TOKEN
    reference = Reference(teacher=teacher, first=first, next_ids_N=next_ids_N, groups_N=torch.arange(N) % 4)
    affine = Readings.one(
        lambda rows: pytest.fail("logits of whole rows were made"),
        lambda rows: Affine(z_NE[rows], weight_EV, bias_V),
    )
    dense = Readings.one(lambda rows: torch.addmm(bias_V, z_NE[rows], weight_EV))
    tiled, whole = (ReadingSums(1, CPU, num_groups=4) for _ in range(2))
    tiled.add([affine], reference)
    whole.add([dense], reference)
    torch.testing.assert_close(tiled.sums_GQC, whole.sums_GQC, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(tiled.totals_QF, whole.totals_QF, rtol=1e-5, atol=2e-5)
    assert spoil is far_above or whole.totals_QF[0, 2] > 0
