"""Kept mass, rounding and KL to the exact distribution, against numpy and by hand."""

import math

import numpy as np
import pytest
import torch

from alens.fidelity.forms import TargetForm
from alens.fidelity.sample import RowSample
from alens.fidelity.target_error import (
    ExactDistributions,
    kept_mass,
    kl_to_exact,
    largest_k,
    remade_targets,
    rounding,
    tail_uniforms,
)
from alens.store.cache_reader import Cache, Targets

CPU = torch.device("cpu")


def dense(demo: Cache, sample: RowSample) -> np.ndarray:
    """(N, V) exact probabilities, float64."""
    logits = sample.read("targets/final").astype(float) @ demo.weights("W_U") + demo.weights("b_U")
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return probs / probs.sum(1, keepdims=True)


@pytest.fixture
def exact(demo: Cache) -> ExactDistributions:
    return ExactDistributions.of(demo, CPU)


@pytest.fixture
def sample(demo: Cache) -> RowSample:
    return RowSample(demo, 200, seed=3)


def most_probable(sample: RowSample, exact: ExactDistributions) -> torch.Tensor:
    return exact.most_probable(sample.read("targets/final"), largest_k(sample))


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([1, 1], 0.5 * math.log(2)),  # 1/2, 1/2, 0, 0
        ([1, 2], 0.25 * math.log(2)),  # 1/2, 1/4, 1/4, 0
        ([2, 2], 0.5 * math.log(4)),  # 1/2, 0, 1/2, 0
    ],
)
def test_kl_of_a_case_by_hand(draws: list[int], expected: float) -> None:
    """The exact distribution is 1/2, 1/4, 1/8, 1/8; the target keeps the first token and two draws."""
    probs = torch.tensor([0.5, 0.25, 0.125, 0.125])
    model = ExactDistributions(torch.zeros(3, 4), probs.log(), cap=None)
    targets = Targets(
        ids_NK=np.array([[0]]),
        log_probs_NK=np.log(np.array([[0.5]])).astype(np.float16),
        logsumexp_N=np.zeros(1, np.float32),
        entropy_N=np.zeros(1, np.float32),
        tail_ids_NM=np.array([draws]),
    )
    ((kl,),) = kl_to_exact([targets], np.zeros((1, 3), np.float16), model)
    assert kl == pytest.approx(expected, abs=3e-4)


def test_kl_of_stored_targets_against_numpy(
    demo: Cache, sample: RowSample, exact: ExactDistributions
) -> None:
    targets, p_NV = sample.targets(), dense(demo, sample)
    expected = []
    for row, p_V in enumerate(p_NV):
        q_V = np.zeros_like(p_V)
        q_V[targets.ids_NK[row]] = np.exp(targets.log_probs_NK[row].astype(float))
        rest = 1 - q_V.sum()
        for token in targets.tail_ids_NM[row]:
            q_V[token] += rest / 16
        here = q_V > 0
        expected.append((q_V[here] * np.log(q_V[here] / p_V[here])).sum())
    (kls,) = kl_to_exact([targets], sample.read("targets/final"), exact)
    assert kls == pytest.approx(np.array(expected), abs=2e-4)
    assert kls.mean() > 0.1


def test_the_whole_distribution_has_no_kl_but_by_rounding(
    sample: RowSample, exact: ExactDistributions
) -> None:
    final_ND = sample.read("targets/final")
    whole = remade_targets(TargetForm(4096, 1), final_ND, exact, np.zeros((len(sample), 1)))
    assert whole is not None
    (kl_N,) = kl_to_exact([whole], final_ND, exact)
    assert np.median(kl_N) < 2e-3
    assert (
        np.abs(kl_N).max() < 0.01
    )  # what float16 rounds off goes to the one sample, the least probable token


def test_kept_mass_against_numpy(demo: Cache, sample: RowSample, exact: ExactDistributions) -> None:
    sorted_NV = -np.sort(-dense(demo, sample), axis=1)
    masses = kept_mass(sample, most_probable(sample, exact))
    assert [mass.k for mass in masses] == [1, 2, 4, 8, 16, 128, 256, 512]
    for mass in masses:
        kept_N = sorted_NV[:, : mass.k].sum(1)
        assert mass.mean == pytest.approx(kept_N.mean(), abs=1e-5)
        assert mass.percentile_10 == pytest.approx(np.percentile(kept_N, 10), abs=1e-5)


def test_without_the_exact_teacher_mass_is_known_up_to_the_stored_k(
    sample: RowSample, exact: ExactDistributions
) -> None:
    masses, known = kept_mass(sample, None), kept_mass(sample, most_probable(sample, exact))
    assert [mass.k for mass in masses] == [1, 2, 4, 8, 16]
    for mass, true in zip(masses, known, strict=False):
        assert mass.mean == pytest.approx(true.mean, abs=1e-3)


def test_rounding_against_numpy(demo: Cache, sample: RowSample, exact: ExactDistributions) -> None:
    p_NV = dense(demo, sample)
    log_NK = np.log(-np.sort(-p_NV, axis=1)[:, :16])
    rounded_NK = log_NK.astype(np.float16).astype(float)
    effect = rounding(most_probable(sample, exact)[:, :16])
    assert effect.mean == pytest.approx(np.abs(rounded_NK - log_NK).mean(), rel=0.02)
    assert effect.largest <= np.abs(log_NK).max() * 2**-11
    q_NK = np.exp(rounded_NK)
    tail_N, true_N = 1 - q_NK.sum(1), 1 - np.exp(log_NK).sum(1)
    kl_N = (q_NK * (rounded_NK - log_NK)).sum(1) + tail_N * np.log(tail_N / true_N)
    assert effect.kl == pytest.approx(kl_N.mean(), rel=0.1)


def test_the_stored_form_made_anew_is_what_was_stored(
    demo: Cache, sample: RowSample, exact: ExactDistributions
) -> None:
    """Up to the float16 of the final residual: the same draws from the same uniform numbers."""
    stored = sample.targets()
    uniforms = tail_uniforms(demo.plan, sample.row_numbers(), 16)
    made = remade_targets(TargetForm(16, 16), sample.read("targets/final"), exact, uniforms)
    assert made is not None
    assert (made.tail_ids_NM == stored.tail_ids_NM).mean() > 0.95
    assert (made.ids_NK == stored.ids_NK).mean() > 0.95
    assert np.abs(made.log_probs_NK.astype(float) - stored.log_probs_NK).max() < 0.02
    assert made.entropy_N == pytest.approx(stored.entropy_N, abs=5e-3)


def test_more_samples_and_a_larger_k_come_nearer(
    demo: Cache, sample: RowSample, exact: ExactDistributions
) -> None:
    final_ND = sample.read("targets/final")
    forms = []
    for form in (TargetForm(8, 8), TargetForm(8, 32), TargetForm(64, 32)):
        uniforms = tail_uniforms(demo.plan, sample.row_numbers(), form.tail_samples)
        made = remade_targets(form, final_ND, exact, uniforms)
        assert made is not None and made.tail_ids_NM.shape == (len(sample), form.tail_samples)
        forms.append(made)
    rows_done: list[int] = []
    kls = kl_to_exact(forms, final_ND, exact, rows_done.append)
    assert kls.mean(1).tolist() == sorted(kls.mean(1), reverse=True)
    assert np.array_equal(kls[1], kl_to_exact(forms[1:2], final_ND, exact)[0])
    assert sum(rows_done) == len(sample)


def test_making_targets_can_be_stopped(sample: RowSample, exact: ExactDistributions) -> None:
    uniforms = np.zeros((len(sample), 4))
    assert (
        remade_targets(TargetForm(4, 4), sample.read("targets/final"), exact, uniforms, lambda: True) is None
    )
