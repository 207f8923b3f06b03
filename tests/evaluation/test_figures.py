"""Figures against a dense float64 computation of the same."""

import numpy as np
import pytest
import torch

from alens.evaluation.figures import FigureSums, add_together
from alens.lens.maps import AffineMaps
from alens.machine import blocks
from alens.rows.agreement import ModelChoice
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import ExactTeacher, TeacherBlock

N, H, E, D, V = 23, 2, 3, 4, 19


def case(seed: int = 0) -> tuple[torch.Tensor, AffineMaps, ExactTeacher, torch.Tensor]:
    """z, maps, teacher and next tokens; every fifth row ends a sequence."""
    random = torch.Generator().manual_seed(seed)
    z_NHE = torch.randn(N, H, E, generator=random).half()
    maps = AffineMaps(
        weight_HEV=torch.randn(H, E, V, generator=random), bias_HV=torch.randn(H, V, generator=random)
    )
    final_ND, W_U_DV = torch.randn(N, D, generator=random).half(), torch.randn(D, V, generator=random)
    b_U_V = torch.randn(V, generator=random)
    probs_NV = (final_ND.double() @ W_U_DV.double() + b_U_V.double()).softmax(-1)
    entropies = torch.special.entr(probs_NV).sum(-1).float()
    next_ids_N = torch.randint(0, V, (N,), generator=random)
    next_ids_N[::5] = NO_NEXT_TOKEN
    return z_NHE, maps, ExactTeacher(final_ND, W_U_DV, b_U_V, entropies), next_ids_N


def chosen(ids_N: torch.Tensor) -> ModelChoice:
    """Of a model that has one most probable token in each row."""
    return ModelChoice.of(ids_N[:, None], torch.zeros(len(ids_N), 1), 1, V)


def model_log_probs(teacher: ExactTeacher) -> np.ndarray:
    logits_NV = teacher.final_ND.double() @ teacher.W_U_DV.double() + teacher.b_U_V.double()
    return np.asarray(logits_NV.log_softmax(-1))


@pytest.mark.parametrize("block_rows", [1, 4, 1000])
def test_all_three_are_the_dense_ones(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(blocks, "CPU_ROWS", block_rows)
    z_NHE, maps, teacher, next_ids_N = case()
    model_NV = model_log_probs(teacher)
    sums = FigureSums(H, torch.device("cpu"))
    sums.add(z_NHE, maps, teacher, chosen(torch.from_numpy(model_NV.argmax(1))), next_ids_N)
    for head, found in enumerate(sums.means()):
        logits_NV = z_NHE[:, head].double() @ maps.weight_HEV[head].double() + maps.bias_HV[head].double()
        lens_NV = np.asarray(logits_NV.log_softmax(-1))
        inside = np.asarray(next_ids_N) != NO_NEXT_TOKEN
        kl = (np.exp(model_NV) * (model_NV - lens_NV)).sum(1).mean()
        surprise = -lens_NV[inside, np.asarray(next_ids_N)[inside]].mean()
        assert found.kl == pytest.approx(kl, rel=1e-4)
        assert found.cross_entropy == pytest.approx(surprise, rel=1e-4)
        assert found.top1_agreement == (lens_NV.argmax(1) == model_NV.argmax(1)).mean()


def test_rows_added_in_parts_or_on_ranks_give_the_same_means() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    choice = chosen(torch.arange(N) % V)
    whole, first, second = (FigureSums(H, torch.device("cpu")) for _ in range(3))
    whole.add(z_NHE, maps, teacher, choice, next_ids_N)
    for sums, rows in ((first, slice(0, 9)), (second, slice(9, N))):
        part = ExactTeacher(teacher.final_ND[rows], teacher.W_U_DV, teacher.b_U_V, teacher.entropies[rows])
        sums.add(z_NHE[rows], maps, part, choice.rows(rows), next_ids_N[rows])
    first.values += second.values
    for together, apart in zip(whole.means(), first.means(), strict=True):
        assert together.kl == pytest.approx(apart.kl)
        assert together.cross_entropy == pytest.approx(apart.cross_entropy)
        assert together.top1_agreement == pytest.approx(apart.top1_agreement)


class Counted(ExactTeacher):
    """Counts the rows whose whole distributions were made."""

    rows_made = 0

    def block(self, rows: slice) -> TeacherBlock:
        Counted.rows_made += rows.stop - rows.start
        return super().block(rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_layers_that_are_judged_together_share_the_teacher(threads: int) -> None:
    """And have the sums that each has alone, to the last bit."""
    cases = [case(seed) for seed in range(3)]
    exact, next_ids_N = cases[0][2:]
    teacher = Counted(exact.final_ND, exact.W_U_DV, exact.b_U_V, exact.entropies)
    rows = (teacher, chosen(torch.arange(N) % V), next_ids_N)
    groups_N = torch.arange(N) % 4
    together, alone = ([FigureSums(H, torch.device("cpu"), 4) for _ in cases] for _ in range(2))
    readings = [(sums, z_NHE, maps) for sums, (z_NHE, maps, *_) in zip(together, cases, strict=True)]
    blocks_seen: list[int] = []
    before, Counted.rows_made = torch.get_num_threads(), 0
    torch.set_num_threads(threads)
    try:
        add_together(readings, *rows, groups_N, after_block=blocks_seen.append)
    finally:
        torch.set_num_threads(before)
    assert Counted.rows_made == sum(blocks_seen) == N
    for sums, (z_NHE, maps, *_) in zip(alone, cases, strict=True):
        sums.add(z_NHE, maps, *rows, groups_N)
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.kl_GH, other.kl_GH) and torch.equal(one.rows_G, other.rows_G)


def test_the_lens_that_is_the_model_has_no_kl_and_agrees_everywhere() -> None:
    _, _, teacher, next_ids_N = case()
    sums = FigureSums(1, torch.device("cpu"))
    choice = chosen(torch.from_numpy(model_log_probs(teacher).argmax(1)))
    z_NHE = teacher.final_ND[:, None]
    sums.add(
        z_NHE,
        AffineMaps(weight_HEV=teacher.W_U_DV[None], bias_HV=teacher.b_U_V[None]),
        teacher,
        choice,
        next_ids_N,
    )
    (found,) = sums.means()
    assert found.kl == pytest.approx(0, abs=1e-5)
    assert found.top1_agreement == 1.0


def test_sums_by_sequence_add_up_to_the_whole() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    groups_N = torch.arange(N) % 4
    sums = FigureSums(H, torch.device("cpu"), num_groups=4)
    sums.add(z_NHE, maps, teacher, chosen(torch.zeros(N, dtype=torch.int64)), next_ids_N, groups_N)
    assert sums.rows_G.tolist() == groups_N.bincount().tolist()
    torch.testing.assert_close(sums.kl_GH.sum(0), sums.values[:-1, 0])
    one = FigureSums(H, torch.device("cpu"))
    part = ExactTeacher(teacher.final_ND[1::4], teacher.W_U_DV, teacher.b_U_V, teacher.entropies[1::4])
    one.add(z_NHE[1::4], maps, part, chosen(torch.zeros(6, dtype=torch.int64)), next_ids_N[1::4])
    torch.testing.assert_close(sums.kl_GH[1], one.values[:-1, 0])
    assert sums.next_G.tolist() == groups_N[next_ids_N != NO_NEXT_TOKEN].bincount().tolist()
    torch.testing.assert_close(sums.surprise_GH.sum(0), sums.values[:-1, 1])
    torch.testing.assert_close(sums.surprise_GH[1], one.values[:-1, 1])


def test_sums_of_processes_are_added_in_place() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    sums = FigureSums(H, torch.device("cpu"), num_groups=2)
    sums.add(z_NHE, maps, teacher, chosen(torch.zeros(N, dtype=torch.int64)), next_ids_N, torch.arange(N) % 2)
    parts = (sums.values, sums.kl_GH, sums.surprise_GH, sums.rows_G, sums.next_G)
    before = [part.clone() for part in parts]
    sums.reduce(lambda values: values.mul_(2))  # two processes with the same sums
    for part, alone in zip(parts, before, strict=True):
        torch.testing.assert_close(part, 2 * alone)
