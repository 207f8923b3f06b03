"""Entropy and divergences in every form against scipy."""

import math
import re
from pathlib import Path

import pytest
import torch
from scipy import stats
from scipy.spatial import distance

import alens
from alens.rows.teacher import ExactBlock
from alens.statistics import divergences

from .drawn_distributions import distributions


def test_the_divergence_is_that_of_scipy() -> None:
    clean_V, suspect_V = distributions(2)
    expected = distance.jensenshannon(clean_V.numpy(), suspect_V.numpy()) ** 2
    assert float(divergences.jensen_shannon(clean_V, suspect_V)) == pytest.approx(expected)
    assert float(divergences.kl(suspect_V, clean_V)) == pytest.approx(
        float((suspect_V * (suspect_V / clean_V).log()).sum())
    )


def test_no_token_contributes_less_than_nothing() -> None:
    assert (divergences.contributions(distributions(20), distributions(20, seed=1)) >= 0).all()


def test_apart_altogether_is_ln_2_and_the_same_is_0() -> None:
    one_V, other_V = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.25, 0.75])
    assert float(divergences.jensen_shannon(one_V, other_V)) == pytest.approx(math.log(2))
    assert float(divergences.jensen_shannon(other_V, other_V)) == 0.0


def test_small_differences_keep_their_figures() -> None:
    p_V = distributions(1)[0]
    step_V = 1e-5 * p_V * torch.linspace(-1, 1, len(p_V), dtype=torch.float64)
    apart = float(divergences.jensen_shannon(p_V - step_V, p_V + step_V))
    assert apart == pytest.approx(float((step_V**2 / p_V).sum()) / 2, rel=1e-3)


def test_every_form_of_kl_is_that_of_scipy() -> None:
    p_NV, q_NV = distributions(6), distributions(6, seed=1)
    log_p_NV, log_q_NV = p_NV.log(), q_NV.log()
    expected_N = stats.entropy(p_NV, q_NV, axis=-1)
    logits_NV = log_q_NV + torch.arange(6.0)[:, None]
    teacher, change_NV = ExactBlock(p_NV), log_q_NV - log_p_NV + 3.0
    forms = {
        "probabilities": divergences.kl(p_NV, q_NV),
        "log-probabilities": divergences.kl_of_log_probs(log_p_NV, log_q_NV[None])[0],
        "both": divergences.kl_to_log_probs(p_NV, log_q_NV),
        "logits": divergences.kl_of_logits(
            logits_NV, logits_NV.logsumexp(-1), teacher, divergences.entropy(log_p_NV)
        ),
        "change": divergences.kl_of_change(p_NV, log_p_NV, change_NV),
    }
    for name, form_N in forms.items():
        assert form_N.tolist() == pytest.approx(expected_N.tolist()), name


def test_kl_with_a_tail_is_kl_of_the_whole() -> None:
    p_NV, q_NV = distributions(5), distributions(5, seed=1)
    p_NV[:, 20:], q_NV[:, 20:] = p_NV[:, 20:].mean(1, keepdim=True), q_NV[:, 20:].mean(1, keepdim=True)
    p_NK, q_NK = p_NV[:, :20], q_NV[:, :20]
    kl_N = divergences.kl_with_tail(p_NK, p_NK.log(), q_NK.log(), 1 - p_NK.sum(1), 1 - q_NK.sum(1))
    assert kl_N.tolist() == pytest.approx(stats.entropy(p_NV, q_NV, axis=-1).tolist())


def test_entropy_is_that_of_scipy_in_both_forms() -> None:
    p_NV = distributions(5)
    weights_NV = 7.0 * p_NV
    total_N = weights_NV.sum(-1)
    logits_NV = weights_NV.log()
    expected = pytest.approx(stats.entropy(p_NV, axis=-1).tolist())
    assert divergences.entropy(p_NV.log()).tolist() == expected
    assert divergences.entropy(p_NV.log(), p_NV).tolist() == expected
    assert (
        divergences.entropy_of_logits(logits_NV, weights_NV, total_N, logits_NV.logsumexp(-1)).tolist()
        == expected
    )


def test_kl_of_two_coins_is_not_below_0_by_rounding() -> None:
    fair_TV, loaded_RTV = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergences.kl_of_log_probs(fair_TV, loaded_RTV).tolist() == [pytest.approx([expected])]
    assert divergences.kl_of_log_probs(fair_TV, fair_TV[None]).tolist() == [[0.0]]


KERNELS = (
    "cache/target_compression.py",
    "fit/objectives/",
    "evaluation/tile_figures.py",
    "evaluation/scaled_write.py",
)
"""They compute it as part of what they do to whole batches, or to tiles of logits that never stand whole; the last only its
slope."""


def test_divergences_are_computed_here_alone() -> None:
    root = Path(alens.__file__).parent
    computed = re.compile(
        r"xlogy|entr\(|-\([\w.()]+ \* log_\w+\)\.sum|\.expect\(|kl_div|logsumexp[\w.()=-]* - \w*(?:expect|mean)|log_(\w+) - log_\w+\)+\.sum"
    )
    places = {
        name
        for path in root.rglob("*.py")
        if computed.search(path.read_text()) and not (name := str(path.relative_to(root))).startswith(KERNELS)
    }
    assert places == {"statistics/divergences.py"}
