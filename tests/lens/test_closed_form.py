"""The closed form, against numpy's least squares, against the mean output, and on heads that say nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alens import CacheRequest, open_cache, write_cache
from alens.errors import RequestError
from alens.heads import Heads
from alens.lens.closed_form import ClosedForm, closed_form, regress
from alens.lens.whitening import Whitening
from alens.rows import moments
from alens.rows.moments import CrossMoments
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings

LAYER, HEADS, SHARDS = 3, [4, 1], [0, 1, 2, 3]


@pytest.fixture(scope="module")
def cache(demo_cache: Path) -> Cache:
    return open_cache(demo_cache)


@pytest.fixture(scope="module")
def form(cache: Cache) -> ClosedForm:
    return closed_form(cache, Heads.grid([LAYER], HEADS), SHARDS)[LAYER]


def rows_of(cache: Cache, shards: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """z (N, H, E) of `HEADS` and the final residual (N, D), float64, at position 1 and later."""
    rows = np.concatenate([np.arange(shard * 1024, (shard + 1) * 1024) for shard in shards])
    rows = rows[cache.read("rows/position", rows) >= 1]
    z_NHE = cache.z(LAYER, rows)[:, HEADS].astype(np.float64)
    return z_NHE, cache.read("targets/final", rows).astype(np.float64)


def cross_moments(z_NHE: np.ndarray, final_ND: np.ndarray) -> CrossMoments:
    """The moments of these rows."""
    around_NHE, around_ND = z_NHE - z_NHE.mean(0), final_ND - final_ND.mean(0)
    return CrossMoments(
        num_rows=len(z_NHE),
        mean_HE=z_NHE.mean(0),
        covariance_HEE=np.einsum("nhe,nhf->hef", around_NHE, around_NHE) / len(z_NHE),
        cross_HED=np.einsum("nhe,nd->hed", around_NHE, around_ND) / len(z_NHE),
        mean_final_D=final_ND.mean(0),
        variance_final_D=final_ND.var(0),
    )


def test_it_is_a_ridge_regression_of_the_final_residual_on_z(cache: Cache, form: ClosedForm) -> None:
    z_NHE, final_ND = rows_of(cache, SHARDS)
    assert form.num_rows == len(z_NHE) == 4 * 16 * 63
    np.testing.assert_allclose(form.mean_final_D, final_ND.mean(0), atol=1e-5)
    centred_ND = final_ND - final_ND.mean(0)
    for place in range(len(HEADS)):
        z_NE = z_NHE[:, place] - z_NHE[:, place].mean(0)
        least_ED, _, _, _ = np.linalg.lstsq(z_NE, centred_ND, rcond=None)
        left_ND = centred_ND - z_NE @ least_ED
        explained = 1 - np.square(left_ND).sum() / np.square(centred_ND).sum()
        assert form.r2_H[place] == pytest.approx(explained, rel=1e-3)
        noise = 2 * z_NE.shape[1] / len(z_NE) * (1 - explained)
        penalty = noise / (explained - noise) * np.square(z_NE).sum(0).mean()
        more_NE = np.sqrt(penalty) * np.eye(z_NE.shape[1])
        expected_ED, _, _, _ = np.linalg.lstsq(
            np.concatenate([z_NE, more_NE]), np.pad(centred_ND, ((0, len(more_NE)), (0, 0))), rcond=None
        )
        np.testing.assert_allclose(z_NE @ form.T_HED[place], z_NE @ expected_ED, atol=2e-2)


def test_a_head_of_noise_says_little_however_few_its_rows() -> None:
    """256 rows of a head that says nothing, and of one that says all, 16 wide; judged on other rows."""
    random = np.random.default_rng(0)
    z_NHE = random.normal(size=(512, 2, 16)) * np.geomspace(1, 0.01, 16)
    final_ND = 3 * random.normal(size=(512, 24))
    final_ND[:, :4] += 40 * z_NHE[:, 1, :4]
    form = regress(cross_moments(z_NHE[:256], final_ND[:256]))
    centred_ND = final_ND[256:] - form.mean_final_D
    left_H = [
        np.square(centred_ND - (z_NHE[256:, head] - form.mean_HE[head]) @ form.T_HED[head]).sum()
        / np.square(centred_ND).sum()
        for head in (0, 1)
    ]
    assert left_H[0] < 1.02 and left_H[1] < 0.08  # least squares leaves 1.064 and 0.074


def test_the_lens_is_better_than_the_mean_output_on_other_rows(cache: Cache, form: ClosedForm) -> None:
    z_NHE, final_ND = rows_of(cache, [5])
    W_U_DV, b_U_V = torch.from_numpy(cache.weights("W_U")), torch.from_numpy(cache.weights("b_U"))
    log_mean_V = torch.from_numpy(cache.log_mean_output(SHARDS))
    whitening = Whitening.from_moments(form.mean_HE, form.covariance_HEE)
    weight_HEV, bias_HV = form.affine(W_U_DV, log_mean_V, whitening)
    white_HNE = whitening.white(torch.from_numpy(z_NHE))
    model_NV = (torch.from_numpy(final_ND).float() @ W_U_DV + b_U_V).log_softmax(-1)

    def kl(log_probs: torch.Tensor) -> float:
        return float((model_NV.exp() * (model_NV - log_probs)).sum(-1).mean())

    for place in range(len(HEADS)):
        said_NV = torch.addmm(bias_HV[place], white_HNE[place], weight_HEV[place]).log_softmax(-1)
        assert kl(said_NV) < kl(log_mean_V) - 0.1
        mean_V = said_NV.exp().mean(0)  # the bias keeps the mean output, which log_mean_V alone does not
        assert (mean_V - log_mean_V.exp()).abs().sum() < 0.2
        plain_NV = (white_HNE[place] @ weight_HEV[place] + log_mean_V).log_softmax(-1)
        assert kl(said_NV) < kl(plain_NV)


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_a_head_that_does_not_vary_has_zeros(mean: float) -> None:
    random = np.random.default_rng(0)
    z_NHE = random.normal(size=(500, 2, 4))
    z_NHE[:, 0] = mean
    final_ND = random.normal(size=(500, 5)) + z_NHE[:, 1, :1]
    form = regress(cross_moments(z_NHE, final_ND))
    assert form.r2_H[0] == pytest.approx(0, abs=1e-9) and 0.3 < form.r2_H[1] < 0.7
    whitening = Whitening.from_moments(form.mean_HE, form.covariance_HEE)
    assert form.white(whitening).isfinite().all()
    assert float(form.white(whitening)[0].abs().max()) < 1e-6


def test_no_more_rows_are_summed_than_are_asked_for(cache: Cache) -> None:
    all_rows = moments.cross_of_rows(cache, Heads.grid([LAYER], HEADS), SHARDS, 5000)[LAYER]
    some = moments.cross_of_rows(cache, Heads.grid([LAYER], HEADS), SHARDS, 1500)[LAYER]
    z_NHE, final_ND = rows_of(cache, SHARDS)
    assert all_rows.num_rows == 4032 and some.num_rows == 1500
    np.testing.assert_allclose(some.mean_HE, z_NHE[:1500].mean(0), atol=1e-6)
    np.testing.assert_allclose(some.variance_final_D, final_ND[:1500].var(0), rtol=1e-4)


def test_a_cache_without_the_exact_teacher_says_what_to_do(tmp_path: Path) -> None:
    settings = CacheSettings(seq_len=16, rows_per_shard=64, max_rows=64, layers=(0,), top_k=4, tail_samples=4)
    write_cache(
        CacheRequest(model="demo", corpus="demo", store=tmp_path / "s", settings=settings, device="cpu")
    )
    with pytest.raises(RequestError, match=r"no exact teacher to make them from: cache with --final-moments"):
        closed_form(open_cache(tmp_path / "s"), Heads.grid([0], [0]), [0])
