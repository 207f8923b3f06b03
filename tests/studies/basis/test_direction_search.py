"""Directions of a lens and their influence: against scipy, finite differences and lenses that are known by hand."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from alens.errors import RequestError
from alens.lens.maps import AffineMaps, LensMaps, TranslatedMaps
from alens.statistics.divergences import kl_of_change
from alens.studies.basis.direction_search import Search, find_basis
from alens.studies.basis.lens_influence import HeadLens, lens_influence
from alens.studies.basis.subspaces import Coordinates, derangement, random_directions, removals

N, E, D, V = 200, 6, 5, 40


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def values(seed: int = 0) -> torch.Tensor:
    """Rows whose directions have very different variances, and a mean."""
    mixed_NE = normal(N, E, seed=seed) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.2])
    turned_NE: torch.Tensor = mixed_NE @ random_directions(E, E, seed=1).float() + 0.7
    return turned_NE


def coordinates(z_NE: torch.Tensor, kind: str = "whitened") -> Coordinates:
    z = z_NE.double().numpy()
    return Coordinates.from_moments(z.mean(0), np.cov(z.T, bias=True), kind)


def affine(seed: int = 2) -> AffineMaps:
    return AffineMaps(weight_HEV=normal(1, E, V, seed=seed), bias_HV=normal(1, V, seed=seed + 1))


def translated() -> TranslatedMaps:
    return TranslatedMaps(
        translator_HED=normal(1, E, D, seed=4),
        shift_HD=normal(1, D, seed=5),
        gain_HD=normal(1, D, seed=6) + 1,
        offset_HD=normal(1, D, seed=7),
        W_U_DV=normal(D, V, seed=8),
        b_U_V=normal(V, seed=9),
    )


def mean_search(maps: LensMaps, z_NE: torch.Tensor, kind: str = "whitened") -> Search:
    axes = coordinates(z_NE, kind)
    return Search(HeadLens(maps=maps, index=0), z_NE, axes.mean_E.to(z_NE).expand_as(z_NE), axes)


def brute_force(maps: LensMaps, z_NE: torch.Tensor, ablated_NE: torch.Tensor) -> np.ndarray:
    """(N,) KL by scipy, in float64."""
    log_p, log_q = (maps.logits(0, z).double().log_softmax(-1).numpy() for z in (z_NE, ablated_NE))
    kl_N: np.ndarray = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    if log_q.min() > -700:  # else exp gives 0, and scipy infinity
        np.testing.assert_allclose(
            kl_N, rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1), rtol=1e-6, atol=1e-12
        )
    return kl_N


# What is removed


@pytest.mark.parametrize("kind", ["whitened", "raw"])
def test_an_ablation_takes_the_donors_feature_and_keeps_the_others(kind: str) -> None:
    z_NE = values()
    axes = coordinates(z_NE, kind)
    directions_KE = random_directions(E, E, seed=3)
    donors_NE = z_NE[torch.from_numpy(derangement(N, 0))].double()
    ablated_NE = z_NE.double() + (donors_NE - z_NE) @ axes.removal(directions_KE[:2])
    reads_KE = axes.reads(directions_KE)
    torch.testing.assert_close(ablated_NE @ reads_KE[:2].T, donors_NE @ reads_KE[:2].T)
    torch.testing.assert_close(ablated_NE @ reads_KE[2:].T, z_NE.double() @ reads_KE[2:].T)
    torch.testing.assert_close(reads_KE @ axes.writes(directions_KE).T, torch.eye(E, dtype=torch.float64))


def test_in_whitened_coordinates_nothing_linear_of_the_feature_is_left() -> None:
    z_NE = values()
    direction_1E = random_directions(1, E, seed=5)
    left = {}
    for kind in ("whitened", "raw"):
        axes = coordinates(z_NE, kind)
        centred_NE = z_NE.double() - axes.mean_E
        feature_N = centred_NE @ axes.reads(direction_1E)[0]
        ablated_NE = centred_NE - centred_NE @ axes.removal(direction_1E)
        left[kind] = float((feature_N @ ablated_NE).abs().max() / N)
    assert left["whitened"] < 1e-9 < 0.1 < left["raw"]


def test_whitened_influence_does_not_depend_on_the_basis_that_z_is_written_in() -> None:
    z_NE, maps = values(), affine()
    change_EE = normal(E, E, seed=11) + 2 * torch.eye(E)
    other = AffineMaps(weight_HEV=torch.linalg.inv(change_EE)[None] @ maps.weight_HEV, bias_HV=maps.bias_HV)
    bases = [find_basis(mean_search(m, z), 2) for m, z in ((maps, z_NE), (other, z_NE @ change_EE))]
    influences = [
        float(mean_search(m, z).sigma(basis_KE[0].numpy())[0])
        for m, z, basis_KE in zip((maps, other), (z_NE, z_NE @ change_EE), bases, strict=True)
    ]
    assert influences[0] == pytest.approx(influences[1], rel=0.02)


def test_principal_directions_are_those_of_z_and_have_unit_variance() -> None:
    z_NE = values()
    axes = coordinates(z_NE)
    features_NE = (z_NE.double() - axes.mean_E) @ axes.reads(axes.principal_EE).T
    torch.testing.assert_close(
        features_NE.T @ features_NE / N, torch.eye(E, dtype=torch.float64), atol=1e-6, rtol=0
    )
    first_E = axes.writes(axes.principal_EE)[0]
    largest = torch.linalg.eigvalsh(torch.cov(z_NE.double().T, correction=0))[-1]
    assert float(first_E.norm() ** 2) == pytest.approx(float(largest))


def test_every_row_takes_the_value_of_another_once() -> None:
    donors_N = derangement(50, seed=4)
    assert sorted(donors_N) == list(range(50)) and not (donors_N == np.arange(50)).any()
    assert (donors_N == derangement(50, seed=4)).all() and (donors_N != derangement(50, seed=5)).any()
    with pytest.raises(RequestError, match="a single row has no other row"):
        derangement(1, seed=0)


def test_a_z_that_never_changes_has_no_directions() -> None:
    with pytest.raises(RequestError, match="the same on every row"):
        Coordinates.from_moments(np.ones(3), np.zeros((3, 3)))


# Influence


@pytest.mark.parametrize("maps", [affine(), translated()], ids=["affine", "translated"])
def test_influence_is_the_kl_of_the_two_readings(maps: LensMaps) -> None:
    z_NE = values()
    axes, directions_KE = coordinates(z_NE), random_directions(3, E, seed=0)
    donors_NE = z_NE[torch.from_numpy(derangement(N, 0))]
    removals_AEE = removals(axes, [directions_KE[:1], directions_KE[1:]])
    influence_AN = lens_influence(HeadLens(maps=maps, index=0), z_NE, donors_NE, removals_AEE)
    for a, reads in enumerate((axes.reads(directions_KE[:1]), axes.reads(directions_KE[1:]))):
        writes = axes.writes(directions_KE[:1] if a == 0 else directions_KE[1:])
        ablated_NE = z_NE + (((donors_NE - z_NE).double() @ reads.T) @ writes).float()
        np.testing.assert_allclose(influence_AN[a], brute_force(maps, z_NE, ablated_NE), rtol=2e-3, atol=1e-5)


def test_a_tiny_change_has_a_tiny_kl_and_a_huge_one_is_finite() -> None:
    log_p_NV = normal(3, V, seed=0).double().log_softmax(-1)
    change_NV = normal(3, V, seed=1).double()
    for scale in (1e-3, 1.0, 300.0):
        changed_NV = (log_p_NV + scale * change_NV).log_softmax(-1)
        exact_N = (log_p_NV.exp() * (log_p_NV - changed_NV)).sum(-1).numpy()
        found_N = kl_of_change(log_p_NV.exp().float(), log_p_NV.float(), scale * change_NV.float())
        np.testing.assert_allclose(found_N, exact_N, rtol=2e-3)


@pytest.mark.parametrize("kind", ["whitened", "raw"])
@pytest.mark.parametrize("maps", [affine(), translated()], ids=["affine", "translated"])
def test_the_gradient_is_that_of_finite_differences(maps: LensMaps, kind: str) -> None:
    search = mean_search(maps, values(), kind)
    v_E = random_directions(1, E, seed=2)[0].numpy()
    _, gradient_E = search.sigma(v_E)
    for place in range(E):
        step_E = 1e-2 * np.eye(E)[place]
        slope = (search.sigma(v_E + step_E)[0] - search.sigma(v_E - step_E)[0]) / 2e-2
        assert gradient_E[place] == pytest.approx(slope, rel=0.03, abs=0.01 * np.abs(gradient_E).max())


def test_a_change_that_overflows_takes_the_slow_way_and_is_right() -> None:
    maps = affine()
    big = AffineMaps(weight_HEV=maps.weight_HEV * 20, bias_HV=maps.bias_HV)
    z_NE = values()
    search, axes = mean_search(big, z_NE), coordinates(z_NE)
    v_E = random_directions(1, E, seed=2)[0]
    slope_V = v_E.float() @ search.slopes_EV
    assert float((search.away_NE @ v_E.float()).abs().max() * slope_V.abs().max()) > 100  # nats
    ablated_NE = z_NE - ((z_NE - axes.mean_E).double() @ axes.removal(v_E[None])).float()
    assert search.sigma(v_E.numpy())[0] == pytest.approx(brute_force(big, z_NE, ablated_NE).mean(), rel=1e-3)


@pytest.mark.parametrize("far", [0.0, 30.0, 3000.0])
def test_the_fisher_information_does_not_depend_on_what_all_logits_share(far: float) -> None:
    """Weights far from zero in every token: the same readings, whose covariance float32 sums lost."""
    maps, z_NE = affine(), values()
    moved = AffineMaps(weight_HEV=maps.weight_HEV + far, bias_HV=maps.bias_HV)
    search, axes = mean_search(moved, z_NE), coordinates(z_NE)
    slopes_EV = axes.writes(torch.eye(E, dtype=torch.float64)) @ maps.weight_HEV[0].double()
    expected_EE = np.zeros((E, E))
    for p_V in maps.logits(0, z_NE).double().softmax(-1):
        expected_EE += np.cov(slopes_EV.numpy(), aweights=p_V.numpy(), bias=True) / N
    error = np.abs(search.fisher() - expected_EE).max() / np.abs(expected_EE).max()
    assert error < (1e-5 if far < 100 else 1e-2)
    v_E = random_directions(1, E, seed=2)[0].numpy()
    assert search.sigma(v_E)[0] == pytest.approx(mean_search(maps, z_NE).sigma(v_E)[0], rel=1e-2)


# The basis


def test_a_lens_of_one_direction_has_that_direction_and_no_other() -> None:
    z_NE = values()
    axes = coordinates(z_NE)
    planted_E = random_directions(1, E, seed=9)[0]
    weight_EV = torch.outer(axes.reads(planted_E[None])[0].float(), normal(V, seed=3))
    search = mean_search(AffineMaps(weight_HEV=weight_EV[None], bias_HV=normal(1, V, seed=4)), z_NE)
    basis_KE = find_basis(search, E)
    assert abs(float(basis_KE[0] @ planted_E)) == pytest.approx(1.0, abs=0.01)
    influences = [search.sigma(v_E.numpy())[0] for v_E in basis_KE]
    assert influences[0] > 0.1 and max(influences[1:]) < 0.02 * influences[0]


@pytest.mark.parametrize("kind", ["whitened", "raw"])
@pytest.mark.parametrize("maps", [affine(), translated()], ids=["affine", "translated"])
def test_directions_are_orthonormal_and_the_first_beats_all_that_are_tried(maps: LensMaps, kind: str) -> None:
    search = mean_search(maps, values(), kind)
    basis_KE = find_basis(search, E)
    torch.testing.assert_close(basis_KE @ basis_KE.T, torch.eye(E, dtype=torch.float64), atol=1e-9, rtol=0)
    first = search.sigma(basis_KE[0].numpy())[0]
    tried = [search.sigma(v_E.numpy())[0] for seed in range(20) for v_E in random_directions(E, E, seed)]
    assert first > max(tried)


def test_the_search_gains_on_its_start() -> None:
    search = mean_search(affine(), values())
    start_E = np.linalg.eigh(search.fisher())[1][:, -1]
    assert search.sigma(find_basis(search, 1)[0].numpy())[0] > 1.001 * search.sigma(start_E)[0]


def test_for_small_changes_influence_is_the_fisher_form() -> None:
    """Half the variance of the logits' change under the reading, where features and readings are independent."""
    maps = affine()
    small = AffineMaps(weight_HEV=1e-3 * maps.weight_HEV, bias_HV=maps.bias_HV)
    search = mean_search(small, values())
    for v_E in random_directions(3, E, seed=0).numpy():
        assert search.sigma(v_E)[0] == pytest.approx(v_E @ search.fisher() @ v_E / 2, rel=0.02)
