"""Readings of lenses, summed over rows: against a dense float64 computation of the same."""

import numpy as np
import pytest
import torch

from alens.evaluation.readings import Readings, constant_reading, lens_readings
from alens.evaluation.reference import Reference
from alens.evaluation.sums import KL, SURPRISE, ReadingSums
from alens.evaluation.tile_figures import Affine
from alens.lens.maps import AffineMaps
from alens.machine import blocks
from alens.rows.agreement import ModelChoice
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import ExactTeacher, Teacher, TeacherBlock

N, H, E, D, V = 23, 2, 3, 4, 19
CPU = torch.device("cpu")


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
    """The choice of a model that has one most probable token in each row."""
    return ModelChoice.of(ids_N[:, None], torch.zeros(len(ids_N), 1), 1, V)


def added(
    sums: ReadingSums,
    readings: list[Readings],
    teacher: Teacher,
    first: ModelChoice,
    next_ids_N: torch.Tensor,
    groups_N: torch.Tensor | None = None,
) -> ReadingSums:
    sums.add(readings, Reference(teacher=teacher, first=first, next_ids_N=next_ids_N, groups_N=groups_N))
    return sums


def model_log_probs(teacher: ExactTeacher) -> np.ndarray:
    logits_NV = teacher.final_ND.double() @ teacher.W_U_DV.double() + teacher.b_U_V.double()
    return np.asarray(logits_NV.log_softmax(-1))


@pytest.mark.parametrize("block_rows", [1, 4, 1000])
def test_all_three_are_the_dense_ones(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(blocks, "CPU_ROWS", block_rows)
    z_NHE, maps, teacher, next_ids_N = case()
    model_NV = model_log_probs(teacher)
    first = chosen(torch.from_numpy(model_NV.argmax(1)))
    sums = added(ReadingSums(H, CPU), lens_readings(maps, z_NHE), teacher, first, next_ids_N)
    for head, figures in enumerate(sums.means()):
        logits_NV = z_NHE[:, head].double() @ maps.weight_HEV[head].double() + maps.bias_HV[head].double()
        lens_NV = np.asarray(logits_NV.log_softmax(-1))
        inside = np.asarray(next_ids_N) != NO_NEXT_TOKEN
        kl = (np.exp(model_NV) * (model_NV - lens_NV)).sum(1).mean()
        surprise = -lens_NV[inside, np.asarray(next_ids_N)[inside]].mean()
        assert figures.kl == pytest.approx(kl, rel=1e-4)
        assert figures.cross_entropy == pytest.approx(surprise, rel=1e-4)
        assert figures.top1_agreement == (lens_NV.argmax(1) == model_NV.argmax(1)).mean()


def test_rows_added_in_parts_or_on_ranks_give_the_same_means() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    choice = chosen(torch.arange(N) % V)
    whole, first, second = (ReadingSums(H, CPU) for _ in range(3))
    added(whole, lens_readings(maps, z_NHE), teacher, choice, next_ids_N)
    for sums, rows in ((first, slice(0, 9)), (second, slice(9, N))):
        part = ExactTeacher(teacher.final_ND[rows], teacher.W_U_DV, teacher.b_U_V, teacher.entropies[rows])
        added(sums, lens_readings(maps, z_NHE[rows]), part, choice.rows(rows), next_ids_N[rows])
    first.totals_QF += second.totals_QF
    first.counts += second.counts
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
    """Their sums are those that each layer has alone, to the last bit."""
    cases = [case(seed) for seed in range(3)]
    exact, next_ids_N = cases[0][2:]
    teacher = Counted(exact.final_ND, exact.W_U_DV, exact.b_U_V, exact.entropies)
    groups_N = torch.arange(N) % 4
    reference = Reference(
        teacher=teacher, first=chosen(torch.arange(N) % V), next_ids_N=next_ids_N, groups_N=groups_N
    )
    layers = [lens_readings(maps, z_NHE) for z_NHE, maps, *_ in cases]
    together = ReadingSums(3 * H, CPU, num_groups=4)
    blocks_seen: list[int] = []
    before, Counted.rows_made = torch.get_num_threads(), 0
    torch.set_num_threads(threads)
    try:
        together.add([reading for layer in layers for reading in layer], reference, blocks_seen.append)
    finally:
        torch.set_num_threads(before)
    assert Counted.rows_made == sum(blocks_seen) == N
    for place, layer in enumerate(layers):
        alone = ReadingSums(H, CPU, num_groups=4)
        alone.add(layer, reference)
        one = together.select(slice(place * H, (place + 1) * H))
        assert one.means() == alone.means()
        assert torch.equal(one.sums_GQC, alone.sums_GQC) and torch.equal(one.rows_G, alone.rows_G)


def test_readings_that_share_work_have_the_sums_that_each_has_alone() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    rest = (teacher, chosen(torch.arange(N) % V), next_ids_N, torch.arange(N) % 4)
    shared = Readings(
        logits=lambda rows: (maps.logits(h, z_NHE[rows, h]) for h in range(H)),
        affine=lambda rows: (Affine(z_NHE[rows, h], maps.weight_HEV[h], maps.bias_HV[h]) for h in range(H)),
        count=H,
    )
    mean_V = torch.full((V,), 1 / V).log()
    sums = [
        added(ReadingSums(2 + H, CPU, num_groups=4), readings, *rest)
        for readings in (
            [constant_reading(mean_V), shared, constant_reading(mean_V)],
            [constant_reading(mean_V), *lens_readings(maps, z_NHE), constant_reading(mean_V)],
        )
    ]
    assert sums[0].means() == sums[1].means()
    assert torch.equal(sums[0].sums_GQC, sums[1].sums_GQC)


def test_the_same_distribution_at_every_row_is_a_map_that_reads_nothing() -> None:
    """They have the same figures, to the last bit."""
    z_NHE, _, teacher, next_ids_N = case()
    log_mean_V = torch.randn(V, generator=torch.Generator().manual_seed(3)).log_softmax(-1)
    nothing = AffineMaps(weight_HEV=torch.zeros(1, E, V), bias_HV=log_mean_V[None])
    rest = (teacher, chosen(torch.arange(N) % V), next_ids_N)
    mapped = added(ReadingSums(1, CPU), lens_readings(nothing, z_NHE), *rest)
    assert added(ReadingSums(1, CPU), [constant_reading(log_mean_V)], *rest).means() == mapped.means()


def test_the_lens_that_is_the_model_has_no_kl_and_agrees_everywhere() -> None:
    _, _, teacher, next_ids_N = case()
    choice = chosen(torch.from_numpy(model_log_probs(teacher).argmax(1)))
    maps = AffineMaps(weight_HEV=teacher.W_U_DV[None], bias_HV=teacher.b_U_V[None])
    sums = ReadingSums(1, CPU)
    added(sums, lens_readings(maps, teacher.final_ND[:, None]), teacher, choice, next_ids_N)
    (figures,) = sums.means()
    assert figures.kl == pytest.approx(0, abs=1e-5)
    assert figures.top1_agreement == 1.0


def test_sums_by_sequence_add_up_to_the_whole() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    groups_N = torch.arange(N) % 4
    first = chosen(torch.zeros(N, dtype=torch.int64))
    sums = ReadingSums(H, CPU, num_groups=4)
    added(sums, lens_readings(maps, z_NHE), teacher, first, next_ids_N, groups_N)
    assert sums.rows_G.tolist() == groups_N.bincount().tolist()
    torch.testing.assert_close(sums.sums_GQC.sum(0), sums.totals_QF)
    part = ExactTeacher(teacher.final_ND[1::4], teacher.W_U_DV, teacher.b_U_V, teacher.entropies[1::4])
    one = ReadingSums(H, CPU)
    added(
        one,
        lens_readings(maps, z_NHE[1::4]),
        part,
        chosen(torch.zeros(6, dtype=torch.int64)),
        next_ids_N[1::4],
    )
    torch.testing.assert_close(sums.sums_GQC[1, :, [KL, SURPRISE]], one.totals_QF[:, [KL, SURPRISE]])
    assert sums.next_G.tolist() == groups_N[next_ids_N != NO_NEXT_TOKEN].bincount().tolist()
    assert sums.counts.tolist() == [N, sums.next_G.sum()]


def test_sums_of_processes_are_added_in_place() -> None:
    z_NHE, maps, teacher, next_ids_N = case()
    sums = ReadingSums(H, CPU, num_groups=2)
    first = chosen(torch.zeros(N, dtype=torch.int64))
    added(sums, lens_readings(maps, z_NHE), teacher, first, next_ids_N, torch.arange(N) % 2)
    parts = (sums.totals_QF, sums.counts, sums.sums_GQC, sums.rows_G, sums.next_G)
    before = [part.clone() for part in parts]
    sums.reduce(lambda values: values.mul_(2))  # two processes with the same sums
    for part, alone in zip(parts, before, strict=True):
        torch.testing.assert_close(part, 2 * alone)
