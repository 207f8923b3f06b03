"""What chance gives two sets of readings, against plain loops, what can be counted, and readings of nothing."""

import itertools

import numpy as np
import pytest
import torch

from alens.statistics import divergences, mean_readings
from alens.statistics.signs import all_signs, flips
from alens.studies.comparison.chance import Chance, Draws, NoiseEstimate, flipped, p_values


def distributions(
    number: int, vocabulary: int = 50, seed: int = 0, concentration: float = 20.0
) -> torch.Tensor:
    """(N, V) distributions that vary around one mean."""
    mean_V = np.random.default_rng(99).dirichlet(np.ones(vocabulary)) + 1e-3
    found_NV = np.random.default_rng(seed).dirichlet(mean_V * concentration / mean_V.sum(), size=number)
    return torch.from_numpy(found_NV)


def test_few_signs_are_all_taken_and_many_are_drawn() -> None:
    assert (flips(3, 8, seed=0) == all_signs(3)).all() and len(np.unique(all_signs(3), axis=0)) == 8
    drawn_RN = flips(3, 7, seed=0)
    assert drawn_RN.shape == (7, 3) and (np.abs(drawn_RN) == 1).all()
    assert (flips(9, 50, seed=0) != flips(9, 50, seed=1)).any()


def test_flipped_means_are_a_plain_loop_over_all_signs() -> None:
    readings_NV = distributions(5)
    pooled_V, apart = readings_NV.mean(0), [half - half.mean(0) for half in readings_NV.split([2, 3])]
    weights = flipped(2, 3, 32, seed=0)
    for row, signs in enumerate(itertools.product((1.0, -1.0), repeat=5)):
        for weights_PN, apart_CV, own in (
            (weights.clean_PN, apart[0], signs[:2]),
            (weights.suspect_PN, apart[1], signs[2:]),
        ):
            size = len(own)
            expected_V = (torch.tensor(own)[:, None] * apart_CV).mean(0) * (size / (size - 1)) ** 0.5
            assert (torch.from_numpy(weights_PN[row]) @ readings_NV).numpy() == pytest.approx(
                (pooled_V + expected_V).numpy(), abs=1e-12
            )


def test_noise_is_what_divergences_are_on_average() -> None:
    ratios = []
    for seed in range(40):
        readings_NV = torch.cat([distributions(20, seed=seed), distributions(40, seed=1000 + seed)])
        observed = mean_readings.observed(20, 40)
        noise_1 = NoiseEstimate(readings_NV, (20, 40)).for_labels(observed)
        ratios.append(float((mean_readings.under(observed, readings_NV) / noise_1)[0]))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_noise_of_draws_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alens.studies.comparison.chance.tile_size", lambda device: (2, 15))
    readings_NV, weights, sizes = distributions(7), mean_readings.permuted(3, 4, 5, seed=0), (3, 4)
    mean_V = readings_NV.mean(0)
    noise_P = NoiseEstimate(readings_NV, sizes).for_labels(weights)
    for row, value in enumerate(noise_P):
        expected = 0.0
        for weights_PN, size in ((weights.clean_PN, 3), (weights.suspect_PN, 4)):
            own_CV = readings_NV[weights_PN[row] > 0]
            expected += float((own_CV.var(0) / size / (8 * mean_V)).sum())
        assert value == pytest.approx(expected, rel=1e-9)
    signs = flipped(*sizes, 128, seed=0)
    noise_P = NoiseEstimate(readings_NV, sizes).for_flips(signs)
    for row in (0, 1, 70, 127):
        expected = 0.0
        for part, size in ((slice(0, 3), 3), (slice(3, 7), 4)):
            apart_CV = readings_NV[part] - readings_NV[part].mean(0)
            drawn_CV = torch.from_numpy(all_signs(7)[row, part])[:, None] * apart_CV
            expected += float((drawn_CV.var(0) / size / (8 * mean_V)).sum()) * size / (size - 1)
        assert noise_P[row] == pytest.approx(expected, rel=1e-9)


def test_the_p_value_of_pairs_is_near_the_exact_one() -> None:
    readings_NV = distributions(8, vocabulary=5, seed=3)

    def apart(swapped: tuple[bool, ...]) -> float:
        clean = [pair + 4 * swap for pair, swap in enumerate(swapped)]
        others = [n for n in range(8) if n not in clean]
        return float(divergences.jensen_shannon(readings_NV[clean].mean(0), readings_NV[others].mean(0)))

    every = [apart(swapped) for swapped in itertools.product((False, True), repeat=4)]
    exact = np.mean([one >= every[0] * (1 - 1e-9) for one in every])
    draws = Chance(4, 4, 4000, 0, paired=True).draws(readings_NV)
    swapped_Q = draws.statistic[0]
    assert (swapped_Q >= swapped_Q[0] * (1 - 1e-9)).mean() == pytest.approx(exact, abs=0.03)
    assert draws.divergence[0].mean() == pytest.approx(np.mean(every), rel=0.03)


def test_pairs_are_compared_by_their_differences() -> None:
    """Compared with a plain loop: swaps change the signs of differences, flips those of their distances from the mean one."""
    readings_NV = distributions(6)
    scale_V = (8 * readings_NV.mean(0)).sqrt()
    apart_CV = (readings_NV[3:] - readings_NV[:3]) / scale_V
    noise = NoiseEstimate(readings_NV, (3, 3), paired=True)
    swaps = mean_readings.permuted(3, 3, 5, 0, paired=True)
    for row, value in enumerate(noise.for_labels(swaps)):
        signs_C1 = torch.from_numpy(np.sign(swaps.suspect_PN - swaps.clean_PN)[row, 3:, None])
        assert value == pytest.approx(float((signs_C1 * apart_CV).var(0).sum()) / 3, rel=1e-9)
    alike = flipped(3, 3, 8, 0, paired=True)
    for signs, value, clean_N, suspect_N in zip(
        all_signs(3), noise.for_flips(alike), alike.clean_PN, alike.suspect_PN, strict=True
    ):
        drawn_CV = torch.from_numpy(signs)[:, None] * (apart_CV - apart_CV.mean(0)) * 1.5**0.5
        assert value == pytest.approx(float(drawn_CV.var(0).sum()) / 3, rel=1e-9)
        difference_V = torch.from_numpy(suspect_N - clean_N) @ readings_NV / scale_V
        assert difference_V.numpy() == pytest.approx(drawn_CV.mean(0).numpy(), abs=1e-12)


def test_p_values_are_adjusted_for_the_best_of_many_and_are_the_larger_of_two_kinds() -> None:
    rng = np.random.default_rng(0)
    permuted_PH = rng.exponential(1.0, (999, 20)) * np.linspace(1, 100, 20)
    observed_H = np.median(permuted_PH, axis=0)
    observed_H[3] = 50 * permuted_PH[:, 3].max()
    observed_H[7] = np.quantile(permuted_PH[:, 7], 0.97)  # nothing, among twenty
    rows_QH = np.vstack([observed_H, permuted_PH])
    alone_H, adjusted_H = p_values([Draws(divergence=[], statistic=[rows_Q]) for rows_Q in rows_QH.T])
    assert alone_H[3] == adjusted_H[3] == pytest.approx(1 / 1000)
    assert alone_H[7] == pytest.approx(0.03, abs=0.005) and adjusted_H[7] > 0.3
    other_QH = rows_QH.copy()
    other_QH[1:101, 3] = 2 * observed_H[3]
    pairs = zip(rows_QH.T, other_QH.T, strict=True)
    alone_H, adjusted_H = p_values([Draws(divergence=[], statistic=list(pair)) for pair in pairs])
    assert alone_H[3] == pytest.approx(101 / 1000) and adjusted_H[3] >= alone_H[3]


def test_few_prompts_that_spread_far_are_no_change() -> None:
    """10 suspect readings spread twice as far as 30 clean ones, around one mean: shuffled labels alone called every
    such head changed."""
    readings = [
        torch.cat([distributions(30, seed=seed), distributions(10, seed=100 + seed, concentration=4.0)])
        for seed in range(12)
    ]
    chance = Chance(30, 10, 199, 0)
    draws = [chance.draws(one) for one in readings]
    assert p_values(draws)[1].min() > 0.05
    observed = np.mean([mean_readings.under(mean_readings.observed(30, 10), one) for one in readings])
    assert observed == pytest.approx(np.mean([one.expected for one in draws]), rel=0.3)
    assert observed > 1.3 * np.mean([one.divergence[0] for one in draws])  # what shuffled labels give
    assert all(one.high > one.expected for one in draws)


def test_a_change_is_found_under_both_kinds() -> None:
    readings_NV = torch.cat([distributions(20), distributions(20, seed=1)])
    readings_NV[20:] *= 0.8
    readings_NV[20:, 0] += 0.2
    chance = Chance(20, 20, 199, 0)
    assert p_values([chance.draws(readings_NV)])[0][0] == pytest.approx(1 / 200) and chance.flips == 199


def test_readings_that_are_all_alike_show_nothing() -> None:
    readings_NV = distributions(1).expand(6, -1)
    assert p_values([Chance(3, 3, 99, 0).draws(readings_NV)])[0][0] == 1.0
