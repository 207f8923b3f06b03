"""Compressed targets against the model's full logits, and the sampler against its distribution."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alens.cache import target_compression
from alens.machine import blocks
from alens.store.cache_reader import Targets, open_cache

Places = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def stored(demo_cache: Path) -> Targets:
    return open_cache(demo_cache).targets(slice(None))


@pytest.fixture(scope="module")
def row_logits(truth: Any, places: Places) -> npt.NDArray[np.float32]:
    """The model's logits of every row, in the order of rows."""
    return truth.logits_NV[places]


def test_ids_are_the_top_k_most_probable_first(stored: Targets, row_logits: Any) -> None:
    chosen_NK = np.take_along_axis(row_logits, stored.ids_NK.astype(np.int64), axis=1)
    best_NK = -np.sort(-row_logits, axis=1)[:, :16]
    np.testing.assert_allclose(chosen_NK, best_NK, rtol=0, atol=1e-4)  # equal except for ties and rounding


def test_no_id_stands_twice_in_a_row(stored: Targets) -> None:
    assert (np.diff(np.sort(stored.ids_NK, axis=1), axis=1) > 0).all()


def test_logsumexp(stored: Targets, row_logits: Any) -> None:
    expected = torch.from_numpy(row_logits).double().logsumexp(-1).numpy()
    np.testing.assert_allclose(stored.logsumexp_N, expected, rtol=0, atol=1e-4)


def test_log_probs_to_the_rounding_of_float16(stored: Targets, row_logits: Any) -> None:
    log_probs_NV = torch.from_numpy(row_logits).double().log_softmax(-1).numpy()
    expected = np.take_along_axis(log_probs_NV, stored.ids_NK.astype(np.int64), axis=1)
    np.testing.assert_allclose(stored.log_probs_NK, expected, rtol=2**-11, atol=1e-4)


def test_entropy(stored: Targets, row_logits: Any) -> None:
    log_probs_NV = torch.from_numpy(row_logits).double().log_softmax(-1)
    expected = -(log_probs_NV.exp() * log_probs_NV).sum(-1).numpy()
    np.testing.assert_allclose(stored.entropy_N, expected, rtol=0, atol=1e-3)


def test_tail_ids_are_never_in_the_top_k(stored: Targets) -> None:
    assert not (stored.tail_ids_NM[:, :, None] == stored.ids_NK[:, None, :]).any()


def test_stored_tail_ids_follow_the_models_probabilities(stored: Targets, row_logits: Any) -> None:
    """How often each token was drawn, over all rows, against its expected count and variance."""
    probs_NV = torch.from_numpy(row_logits).double().softmax(-1).numpy()
    np.put_along_axis(probs_NV, stored.ids_NK.astype(np.int64), 0.0, axis=1)
    probs_NV /= probs_NV.sum(1, keepdims=True)
    drawn_V = np.bincount(stored.tail_ids_NM.ravel(), minlength=4096)
    expected_V = 16 * probs_NV.sum(0)
    variance_V = 16 * (probs_NV * (1 - probs_NV)).sum(0)
    often = expected_V > 5
    scores = (drawn_V - expected_V)[often] / np.sqrt(variance_V[often])
    assert often.sum() > 500
    assert abs(np.mean(scores**2) - 1) < 6 * np.sqrt(2 / often.sum())
    assert abs(drawn_V[~often].sum() - expected_V[~often].sum()) < 6 * np.sqrt(variance_V[~often].sum() + 1)


def test_cross_entropy_with_the_targets_is_unbiased(stored: Targets, row_logits: Any) -> None:
    """The mean over rows of sum_v p(v) f(v), for a fixed random f, from top k and tail samples."""
    f_V = np.random.default_rng(0).normal(size=4096)
    exact = (torch.from_numpy(row_logits).double().softmax(-1).numpy() @ f_V).mean()
    top_NK = np.exp(stored.log_probs_NK.astype(np.float64))
    tail_N = 1 - top_NK.sum(1)
    estimate_N = (top_NK * f_V[stored.ids_NK]).sum(1) + tail_N * f_V[stored.tail_ids_NM].mean(1)
    top_only = (top_NK * f_V[stored.ids_NK]).sum(1).mean()
    error = np.std(tail_N) + np.mean(tail_N)
    assert abs(estimate_N.mean() - exact) < 5 * error / np.sqrt(6144 * 16)
    assert top_only != pytest.approx(exact, abs=1e-6)


def test_the_output_statistic_is_the_summed_exact_softmax(demo_cache: Path, truth: Any) -> None:
    cache = open_cache(demo_cache)
    for shard in (0, 4):
        places = np.arange(shard * 1024, (shard + 1) * 1024)
        expected_V = truth.probs(places[places % 64 > 0]).sum(0)
        np.testing.assert_allclose(
            cache.read_shard("stats/output", shard)[0], expected_V, rtol=1e-3, atol=1e-7
        )


# The sampler alone


def draws(probs: list[float], top: list[int], num_samples: int = 200_000) -> npt.NDArray[np.int64]:
    uniforms = torch.from_numpy(np.random.default_rng(5).random((1, num_samples)))
    drawn = target_compression.sample_tail(torch.tensor([probs]), torch.tensor([top]), uniforms)
    assert drawn.shape == (1, num_samples)
    return np.bincount(drawn[0].numpy(), minlength=len(probs))


def test_draws_are_in_proportion_to_probability() -> None:
    probs = [0.3, 0.05, 0.2, 0.01, 0.1, 0.04, 0.15, 0.0, 0.1, 0.05]
    counts = draws(probs, top=[0, 2, 6])
    tail = np.array(probs)
    tail[[0, 2, 6]] = 0
    expected = 200_000 * tail / tail.sum()
    assert counts[[0, 2, 6, 7]].tolist() == [0, 0, 0, 0]
    possible = expected > 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 20.5  # 5 degrees of freedom, 1 in 1,000


def test_a_very_small_tail_keeps_its_proportions() -> None:
    counts = draws([1.0, 3e-9, 1e-9, 0.0], top=[0])
    assert counts[0] == counts[3] == 0
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.03)


def test_one_token_outside_the_top_k_is_always_drawn() -> None:
    assert draws([0.5, 0.2, 0.2, 0.1], top=[0, 1, 2]).tolist() == [0, 0, 0, 200_000]


@pytest.mark.parametrize("probs", [[0.6, 0.4, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
def test_without_mass_outside_the_top_k_its_least_probable_stands_in(probs: list[float]) -> None:
    assert draws(probs, top=[0, 1]).tolist() == [0, 200_000, 0, 0]


def test_with_k_equal_to_the_vocabulary_ids_stay_valid() -> None:
    assert draws([0.5, 0.2, 0.3], top=[0, 2, 1]).tolist() == [0, 200_000, 0]


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_are_drawn_from_the_tail(uniform: float) -> None:
    torch.manual_seed(0)
    probs_NV = torch.rand(200, 300)
    probs_NV[:, -1] = 0.0  # zero at the end: must not be drawn
    probs_NV[:, 0] = 0.0
    probs_NV /= probs_NV.sum(1, keepdim=True)
    ids_NK = probs_NV.topk(10).indices
    allowed_NV = probs_NV.scatter(1, ids_NK, 0.0) > 0
    drawn = target_compression.sample_tail(
        probs_NV, ids_NK, torch.full((200, 1), uniform, dtype=torch.float64)
    )
    assert allowed_NV.gather(1, drawn).all()


def test_blocks_do_not_change_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    final_ND, W_U_DV, b_U_V = torch.randn(20, 8), torch.randn(8, 40), torch.randn(40)
    uniforms_NM = torch.rand(20, 3, dtype=torch.float64)

    def all_of(rows_a_block: int) -> list[torch.Tensor]:
        monkeypatch.setattr(blocks, "CPU_ROWS", rows_a_block)
        output_V = torch.zeros(40, dtype=torch.float64)
        targets = [
            target_compression.compress(
                final_ND[part], W_U_DV, b_U_V, uniforms_NM[part], 5, torch.ones(len(final_ND[part])) > 0, output_V
            )
            for part in blocks.row_blocks(20, torch.device("cpu"))
        ]  # fmt: skip
        return [torch.cat([b.ids_NK for b in targets]), torch.cat([b.tail_ids_NM for b in targets]), output_V]  # fmt: skip

    for whole, cut in zip(all_of(20), all_of(3), strict=True):
        torch.testing.assert_close(whole, cut, rtol=1e-5, atol=1e-6)
