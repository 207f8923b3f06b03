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
from scipy.stats import spearmanr

from alens import load_lenses
from alens.errors import RequestError
from alens.job.progress import Progress
from alens.reading.lensed_model import LensedModel
from alens.store.cache_reader import open_cache
from alens.studies.basis import measured_bases
from alens.studies.basis.causal_basis import causal_bases
from alens.studies.basis.causal_fidelity import (
    basic_interval,
)
from alens.studies.basis.lens_influence import lens_influence
from alens.studies.basis.model_influence import model_influence
from alens.studies.basis.result import BasisStudy
from alens.studies.basis.settings import BasisSettings

from ... import documents
from .examples import HEAD, LAYER, QUICK, study


def with_lens(lenses: Path, weight_EV: torch.Tensor, bias_V: torch.Tensor) -> Path:
    """The same directory with another lens of the head, and its hash set right."""
    file = lenses / f"layer-{LAYER:02d}.safetensors"
    tensors = load_file(file)
    index = load_lenses(lenses).place(LAYER, HEAD)
    tensors["weight"][index], tensors["bias"][index] = weight_EV, bias_V
    save_file(tensors, file)
    written = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    documents.edit(lenses / "lens.json", lambda body: body["files"].update({file.name: written}))
    return lenses


def test_in_the_last_layer_the_model_ranks_directions_as_the_unembedding(basis_study: BasisStudy) -> None:
    (head,) = basis_study.heads
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
    bias_V = reader.lenses.layer(LAYER).bias_HV[reader.lenses.place(LAYER, HEAD)]
    same = study(with_lens(copy_of(demo_lenses), plain_EV, bias_V), demo_cache, compare=())
    assert (same.heads[0].bases[0].fidelity.correlation.rho or 0) > 0.95
    # feature k is read as the model uses feature K - 1 - k
    basis = same.heads[0].bases[0]
    turned_EV = basis.reads_KE.T.float() @ basis.writes_KE.flip(0).float() @ plain_EV
    reverse = study(with_lens(copy_of(demo_lenses), turned_EV, bias_V), demo_cache, compare=())
    assert (reverse.heads[0].bases[0].fidelity.correlation.rho or 0) < -0.6


def test_figures_follow_from_the_influences(basis_study: BasisStudy) -> None:
    for one in (one.fidelity for one in basis_study.heads[0].bases):
        assert len(one.lens_influence) == len(one.model_influence) == 32
        expected = spearmanr(one.lens_influence, one.model_influence)
        assert one.correlation.rho == pytest.approx(expected.statistic)
        assert one.correlation.p_value == pytest.approx(expected.pvalue, abs=0.02)
        assert one.correlation.p_value is not None and one.correlation.p_value >= 1e-4
        assert min(one.lens_influence) >= 0 and min(one.model_influence) >= 0
        assert one.lens_first < one.lens_whole and one.model_first < one.model_whole
    lens, unembedding, principal, _ = (one.fidelity for one in basis_study.heads[0].bases)
    assert lens.model_whole == pytest.approx(unembedding.model_whole)
    assert lens.lens_whole == pytest.approx(principal.lens_whole)
    assert sum(lens.lens_influence[:4]) > sum(sorted(principal.lens_influence)[-4:])


def test_few_rows_are_said(basis_study: BasisStudy) -> None:
    assert basis_study.has_few_rows  # 2 sequences of 63 positions
    assert dataclasses.replace(basis_study, sequences=31).has_few_rows
    assert not dataclasses.replace(basis_study, sequences=32).has_few_rows


def test_directions_are_biorthogonal(basis_study: BasisStudy) -> None:
    for basis in basis_study.heads[0].bases:
        torch.testing.assert_close(
            basis.reads_KE @ basis.writes_KE.T, torch.eye(32, dtype=torch.float64), atol=1e-6, rtol=0
        )


def test_the_same_seed_gives_the_same_study(
    basis_study: BasisStudy, demo_lenses: Path, demo_cache: Path
) -> None:
    few: dict[str, Any] = {"directions": 4, "ablation": "resample"}
    first, again, other = (study(demo_lenses, demo_cache, **few, seed=seed).to_json() for seed in (0, 0, 1))
    assert first == again
    assert first["heads"] != other["heads"]
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(again))
    mean = basis_study.heads[0].bases[0].fidelity.lens_influence[0]
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


def test_too_many_sequences_are_refused(demo_lenses: Path, demo_cache: Path) -> None:
    with pytest.raises(RequestError, match="has 16 held-out sequences: with --sequences 16 none is left"):
        study(demo_lenses, demo_cache, sequences=16)
