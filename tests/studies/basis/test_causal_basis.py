"""Causal fidelity of heads, with lenses whose fidelity is known: the unembedding's, its reverse, and fitted ones."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import permutation_test, spearmanr

from alens import load_lenses
from alens.errors import DamageError, RequestError
from alens.evaluation.shards import JudgedText
from alens.job.progress import Progress
from alens.reading.lensed_model import LensedModel
from alens.rows import moments
from alens.store.cache_reader import open_cache
from alens.studies.basis import basis_file, held_out_sample, measured_bases
from alens.studies.basis.causal_basis import causal_bases
from alens.studies.basis.causal_fidelity import (
    basic_interval,
    basis_fidelity,
    paired_at_random,
    rank_correlation,
)
from alens.studies.basis.lens_influence import lens_influence
from alens.studies.basis.model_influence import model_influence
from alens.studies.basis.result import BasisStudy
from alens.studies.basis.settings import BasisSettings
from alens.studies.basis.subspaces import Coordinates

from ... import documents

LAYER, HEAD = 3, 1
QUICK: dict[str, Any] = {"layers": (LAYER,), "heads": (HEAD,), "rows": 128, "sequences": 2}


def study(lenses: Path, cache: Path, **settings: Any) -> BasisStudy:
    reader = LensedModel(load_lenses(lenses), device="cpu")
    return causal_bases(reader, open_cache(cache), settings=BasisSettings(**{**QUICK, **settings}))


def with_lens(lenses: Path, weight_EV: torch.Tensor, bias_V: torch.Tensor) -> Path:
    """The same directory with another lens of the head, and its hash set right."""
    file = lenses / f"layer-{LAYER:02d}.safetensors"
    tensors = load_file(file)
    index = load_lenses(lenses).head_index(HEAD)
    tensors["weight"][index], tensors["bias"][index] = weight_EV, bias_V
    save_file(tensors, file)
    written = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    documents.edit(lenses / "lens.json", lambda body: body["files"].update({file.name: written}))
    return lenses


@pytest.fixture(scope="module")
def found(demo_lenses: Path, demo_cache: Path) -> BasisStudy:
    return study(demo_lenses, demo_cache, compare=("unembedding", "principal", "random"))


def test_in_the_last_layer_the_model_ranks_directions_as_the_unembedding(found: BasisStudy) -> None:
    (head,) = found.heads
    by_name = {one.fidelity.basis: one.fidelity for one in head.bases}
    assert list(by_name) == ["lens", "unembedding", "principal", "random"]
    rho = by_name["unembedding"].correlation.rho
    assert rho is not None and rho > 0.95
    # and four of its directions have more of the head's effect than four random ones
    assert (by_name["unembedding"].model_share or 0) > 2 * (by_name["random"].model_share or 1)


def test_a_lens_that_reads_as_the_model_does_is_faithful_and_its_reverse_is_not(
    demo_lenses: Path, demo_cache: Path, copy_of: Callable[[Path], Path]
) -> None:
    reader = LensedModel(load_lenses(demo_lenses), device="cpu")
    plain_EV = reader.model.W_O_LHED[LAYER, HEAD] @ reader.model.W_U_DV
    bias_V = reader.lenses.layer(LAYER).bias_HV[reader.lenses.head_index(HEAD)]
    same = study(with_lens(copy_of(demo_lenses), plain_EV, bias_V), demo_cache, compare=())
    assert (same.heads[0].bases[0].fidelity.correlation.rho or 0) > 0.95
    # feature k is read as the model uses feature K - 1 - k
    basis = same.heads[0].bases[0]
    turned_EV = basis.reads_KE.T.float() @ basis.writes_KE.flip(0).float() @ plain_EV
    reverse = study(with_lens(copy_of(demo_lenses), turned_EV, bias_V), demo_cache, compare=())
    assert (reverse.heads[0].bases[0].fidelity.correlation.rho or 0) < -0.6


def test_figures_follow_from_the_influences(found: BasisStudy) -> None:
    for one in (one.fidelity for one in found.heads[0].bases):
        assert len(one.lens_influence) == len(one.model_influence) == 32
        expected = spearmanr(one.lens_influence, one.model_influence)
        assert one.correlation.rho == pytest.approx(expected.statistic)
        assert one.correlation.p_value == pytest.approx(expected.pvalue, abs=0.02)
        assert one.correlation.p_value is not None and one.correlation.p_value >= 1e-4
        assert min(one.lens_influence) >= 0 and min(one.model_influence) >= 0
        assert one.lens_first < one.lens_whole and one.model_first < one.model_whole
    lens, unembedding, principal, _ = (one.fidelity for one in found.heads[0].bases)
    assert lens.model_whole == pytest.approx(unembedding.model_whole)
    assert lens.lens_whole == pytest.approx(principal.lens_whole)
    assert sum(lens.lens_influence[:4]) > sum(sorted(principal.lens_influence)[-4:])


def test_no_p_is_below_that_of_the_only_best_pairing() -> None:
    """Of four directions in the model's order, 1 of 24 pairings does as well, and the reverse as well."""
    four = np.array([4.0, 3.0, 2.0, 1.0])
    assert paired_at_random(four, four**2, 0) == pytest.approx(2 / 24)
    assert paired_at_random(four, -four, 0) == pytest.approx(2 / 24)
    expected = permutation_test(
        (four,),
        lambda x: spearmanr(x, [4.0, 2.0, 3.0, 1.0]).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
    )
    assert paired_at_random(four, np.array([4.0, 2.0, 3.0, 1.0]), 0) == pytest.approx(expected.pvalue)
    many = np.arange(32.0)
    assert paired_at_random(many, many, 0) == pytest.approx(1 / 10_000)


def test_few_rows_are_said(found: BasisStudy) -> None:
    assert found.has_few_rows  # 2 sequences of 63 positions
    assert dataclasses.replace(found, sequences=31).has_few_rows
    assert not dataclasses.replace(found, sequences=32).has_few_rows


def test_directions_are_biorthogonal(found: BasisStudy) -> None:
    for basis in found.heads[0].bases:
        torch.testing.assert_close(
            basis.reads_KE @ basis.writes_KE.T, torch.eye(32, dtype=torch.float64), atol=1e-6, rtol=0
        )


def test_the_same_seed_gives_the_same_study(found: BasisStudy, demo_lenses: Path, demo_cache: Path) -> None:
    few: dict[str, Any] = {"directions": 4, "ablation": "resample"}
    first, again, other = (study(demo_lenses, demo_cache, **few, seed=seed).to_json() for seed in (0, 0, 1))
    assert first == again
    assert first["heads"] != other["heads"]
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(again))
    mean = found.heads[0].bases[0].fidelity.lens_influence[0]
    assert (
        first["heads"][0]["bases"][0]["lens_influence"][0] > mean
    )  # another row is further away than the mean


def test_random_bases_of_one_seed_are_not_those_of_the_next_one_head_on(
    demo_lenses: Path, demo_cache: Path
) -> None:
    asked: dict[str, Any] = {"layers": (3,), "heads": (1, 4), "directions": 4}
    bases = [
        head.bases[1].reads_KE
        for seed in (0, 3)
        for head in study(demo_lenses, demo_cache, **asked, seed=seed, coordinates="raw").heads
    ]
    pairs = itertools.combinations(bases, 2)
    assert len(bases) == 4 and not any(torch.allclose(one, other) for one, other in pairs)


def test_the_model_gets_the_donors_that_the_reading_gets(
    demo_lenses: Path, demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row has the value of one other row of any of the sequences, and each is given once."""
    given: dict[str, list[torch.Tensor]] = {"model": [], "reading": []}

    def model(*rest: Any, donors_PE: torch.Tensor, **named: Any) -> torch.Tensor:
        given["model"].append(donors_PE)
        return model_influence(*rest, donors_PE=donors_PE, **named)

    def reading(lens: Any, z_NE: torch.Tensor, donors_NE: torch.Tensor, removals_AEE: Any) -> torch.Tensor:
        given["reading"] += [z_NE, donors_NE]
        return lens_influence(lens, z_NE, donors_NE, removals_AEE)

    monkeypatch.setattr(measured_bases, "model_influence", model)
    monkeypatch.setattr(measured_bases, "lens_influence", reading)
    study(demo_lenses, demo_cache, directions=3, top=1, ablation="resample", compare=())
    z_NE, donors_NE = given["reading"]
    assert torch.equal(torch.cat(given["model"]), donors_NE) and len(z_NE) == 2 * 63
    order_N = [int((donors_NE == row_E).all(1).nonzero()[0, 0]) for row_E in z_NE]
    assert sorted(order_N) == list(range(len(z_NE)))
    assert not (donors_NE == z_NE).all(1).any()


def test_the_layer_is_the_mean_of_its_heads(demo_lenses: Path, demo_cache: Path) -> None:
    seen: list[Progress] = []
    reader = LensedModel(load_lenses(demo_lenses), device="cpu")
    settings = BasisSettings(**{**QUICK, "heads": (4, 1)}, directions=5)
    both = causal_bases(reader, open_cache(demo_cache), settings=settings, report=seen.append)
    assert [(head.layer, head.head) for head in both.heads] == [(3, 4), (3, 1)]
    ((lens, random),) = both.layers
    rhos = [head.bases[0].fidelity.correlation.rho or 0.0 for head in both.heads]
    assert lens.rho == pytest.approx(np.mean(rhos)) and (lens.lowest, lens.highest) == (min(rhos), max(rhos))
    drawn_R = np.mean([head.bases[0].drawn_R for head in both.heads], axis=0)
    assert lens.rho is not None and lens.interval == basic_interval(lens.rho, drawn_R)
    assert (lens.basis, random.basis, lens.heads) == ("lens", "random", 2)
    for stage, total in (("find directions", 10), ("ablate", 4)):
        done = [(one.done, one.total) for one in seen if one.stage == stage and one.done]
        assert done == [(number, total) for number in range(1, total + 1)]


def test_raw_coordinates_have_orthonormal_directions_of_z(demo_lenses: Path, demo_cache: Path) -> None:
    basis = study(demo_lenses, demo_cache, coordinates="raw", directions=4, compare=()).heads[0].bases[0]
    torch.testing.assert_close(basis.reads_KE, basis.writes_KE)


# Ranks


def test_ranks_that_agree_and_ranks_that_are_turned() -> None:
    lens_SK = np.arange(1.0, 9.0) * np.ones((3, 1))
    for model_SK, rho in ((lens_SK**2, 1.0), (10 - lens_SK, -1.0)):
        correlation, drawn_R = rank_correlation(lens_SK, model_SK, np.full(3, 4.0), seed=0)
        assert correlation.rho == pytest.approx(rho) and (drawn_R == pytest.approx(rho))
        assert correlation.interval == pytest.approx((rho, rho))


def test_the_interval_is_of_drawn_sequences() -> None:
    generator = np.random.default_rng(0)
    lens_SK, model_SK = np.ones((6, 1)) * np.arange(10.0), generator.exponential(size=(6, 10))
    correlation, drawn_R = rank_correlation(lens_SK, model_SK, np.full(6, 1.0), seed=3)
    assert correlation.interval is not None and correlation.interval[0] < correlation.interval[1]
    assert len(np.unique(drawn_R)) > 20  # many draws, many correlations
    assert correlation.rho == pytest.approx(spearmanr(np.arange(10), model_SK.sum(0)).statistic)


def test_an_interval_takes_off_what_drawing_adds() -> None:
    """Drawn 0.3 too high on Fisher's scale, so rho is taken to be 0.3 too high as well."""
    drawn_R = np.tanh(0.5 + 0.3 + np.linspace(-0.2, 0.2, 4001))
    low, high = basic_interval(float(np.tanh(0.5)), np.append(drawn_R, np.nan)) or (0.0, 0.0)
    assert np.arctanh([low, high]) == pytest.approx([0.01, 0.39], abs=1e-3)
    assert basic_interval(0.5, np.full(3, np.nan)) is None


def test_equal_influences_have_no_rank() -> None:
    correlation, drawn_R = rank_correlation(
        np.ones((2, 5)), np.arange(10.0).reshape(2, 5), np.ones(2), seed=0
    )
    assert correlation.rho is correlation.p_value is correlation.interval is None
    assert np.isnan(drawn_R).all()


def test_a_head_without_effect_has_no_share() -> None:
    fidelity, _ = basis_fidelity(
        "lens", np.ones((6, 2)), np.zeros((6, 2)), positions=3, groups_S=np.arange(2), seed=0
    )
    assert fidelity.model_share is None and fidelity.correlation.rho is None


def test_influences_are_means_over_rows() -> None:
    lens_AS, model_AS = np.arange(12.0).reshape(6, 2), 2 * np.arange(12.0).reshape(6, 2)
    fidelity, _ = basis_fidelity(
        "lens", lens_AS, model_AS, positions=5, groups_S=np.arange(lens_AS.shape[1]), seed=0
    )
    assert (fidelity.lens_whole, fidelity.model_first) == (pytest.approx(1 / 10), pytest.approx(42 / 10))
    assert fidelity.lens_influence == pytest.approx([0.5, 0.9, 1.3, 1.7])


# Held-out text


def test_directions_are_found_on_other_sequences_than_they_are_measured_on(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    text = JudgedText(shards=(4, 5))
    sample = held_out_sample.draw(cache, text, num_rows=100, num_sequences=3, min_position=2, seed=0)
    assert sample.tokens_ST.shape == (3, 64) and len(sample.rows_N) == 100
    measured = {tuple(tokens_T) for tokens_T in sample.tokens_ST}
    for row in sample.rows_N:
        assert 4 <= row // 1024 < 6
        assert cache.read("rows/position", [row])[0] >= 2
        assert tuple(cache.tokens[cache.read("rows/sequence", [row])[0]]) not in measured


def test_too_many_sequences_are_refused(demo_lenses: Path, demo_cache: Path) -> None:
    with pytest.raises(RequestError, match="has 16 held-out sequences: with --sequences 16 none is left"):
        study(demo_lenses, demo_cache, sequences=16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ablation": "zero"}, "ablation is 'zero': it must be one of mean, resample"),
        ({"coordinates": "polar"}, "coordinates is 'polar': it must be one of whitened, raw"),
        ({"compare": ("pca",)}, "compare is 'pca': give unembedding or principal or random"),
        ({"compare": ("random", "random")}, "name each once"),
        ({"directions": 2}, "directions is 2: it must be at least 3"),
        (
            {"directions": 3, "top": 4},
            "directions is 3, and top 4 are to be ablated together: say --top 3 or fewer",
        ),
        ({"rows": 1}, "rows is 1: it must be at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        BasisSettings(**given)


# The file


def test_directions_come_back_from_their_file(found: BasisStudy, demo_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "directions.safetensors"
    basis_file.put(path, found, "abc")
    ((key, read),) = basis_file.load(path).items()
    assert key == (LAYER, HEAD)
    basis = found.heads[0].bases[0]
    torch.testing.assert_close(read.reads_KE, basis.reads_KE.float())
    torch.testing.assert_close(read.lens_influence_K, torch.tensor(basis.fidelity.lens_influence))
    # ablating with what was read is ablating in the study's own coordinates
    cache = open_cache(demo_cache)
    of_z = moments.of_cache(cache, [LAYER], cache.shards)
    coordinates = Coordinates.from_moments(of_z.mean_LHE[0, HEAD], of_z.covariance_LHEE[0, HEAD])
    z_NE = torch.from_numpy(cache.z(LAYER, [5, 70])[:, HEAD]).float()
    ablated_NE = z_NE - ((z_NE - read.mean_E) @ read.reads_KE[0])[:, None] * read.writes_KE[0]
    white_NE = (ablated_NE.double() - coordinates.mean_E) @ coordinates.into_EE
    before_NE = (z_NE.double() - coordinates.mean_E) @ coordinates.into_EE
    direction_E = basis.reads_KE[0] @ torch.linalg.inv(coordinates.into_EE)
    assert float((white_NE @ direction_E).abs().max()) < 1e-3 < float((before_NE @ direction_E).abs().max())


def test_what_is_no_file_of_directions_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    half = tmp_path / "half.safetensors"
    save_file({"0.1.reads": torch.zeros(1)}, half, {"format": basis_file.FORMAT})
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(RequestError, match="does not hold a causal basis"):
        basis_file.load(other)
    with pytest.raises(DamageError, match="is not whole"):
        basis_file.load(half)
    for name in ("empty", "absent"):
        with pytest.raises(RequestError, match="cannot read"):
            basis_file.load(tmp_path / f"{name}.safetensors")
