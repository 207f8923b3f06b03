"""The mean output and a scalar times what a head writes: the scalar of the least KL, and of other documents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize

from alens import EvaluateSettings, evaluate, load_lenses, open_cache
from alens.evaluation.scaled_write import fitted_scalars
from alens.rows.teacher import ExactBlock


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_the_scalar_has_the_least_kl(size: float) -> None:
    written_BV, log_mean_V = size * random(40, 50, seed=0), random(50, seed=1).log_softmax(-1)
    target_BV = (log_mean_V + 0.7 * written_BV + random(40, 50, seed=2)).softmax(-1)
    half_B = torch.arange(40) % 2
    scalars_2 = fitted_scalars(written_BV, log_mean_V, ExactBlock(target_BV), half_B)
    for half in range(2):
        here = half_B == half

        def kl(s: float, here: torch.Tensor = here) -> float:
            log_q_BV = (log_mean_V + s * written_BV[here]).double().log_softmax(-1)
            return float(-(target_BV[here] * log_q_BV).sum(1).mean())

        best = optimize.minimize_scalar(kl, bracket=(-1, 1)).fun
        assert kl(float(scalars_2[half])) == pytest.approx(best, abs=1e-3)


def test_a_half_without_rows_has_the_scalar_of_the_other() -> None:
    written_BV, log_mean_V = random(9, 20, seed=0), torch.zeros(20).log_softmax(-1)
    target = ExactBlock((log_mean_V + written_BV).softmax(-1))
    first, second = fitted_scalars(written_BV, log_mean_V, target, torch.zeros(9, dtype=torch.long))
    assert float(first) == float(second) == pytest.approx(1.0, abs=0.05)


def test_a_write_is_the_mean_output_plus_what_the_head_writes(demo_lenses: Path, demo_cache: Path) -> None:
    cache, lenses = open_cache(demo_cache), load_lenses(demo_lenses)
    settings = EvaluateSettings(layers=(3,), baselines=("written", "scaled-write"), resamples=2)
    evaluation = evaluate(lenses, cache, settings=settings)
    keep_N = np.flatnonzero(cache.read_shard("rows/position", 5) > 0) + 5 * 1024
    W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).double() for name in ("W_U", "b_U"))
    model_NV = (torch.from_numpy(cache.read("targets/final", keep_N)).double() @ W_U_DV + b_U_V).log_softmax(
        -1
    )
    fitted, log_mean_V = lenses.layer(3), lenses.log_mean_output()
    assert fitted.W_O_HED is not None and fitted.mean_z_HE is not None and log_mean_V is not None
    z_NE = torch.from_numpy(cache.z(3, keep_N)[:, 4].astype(np.float64))
    part_ND = (z_NE - fitted.mean_z_HE[1]) @ fitted.W_O_HED[1].double()
    part_ND = (part_ND - part_ND.mean(1, keepdim=True)) * torch.from_numpy(cache.weights("norm_gain"))
    written_NV = part_ND / torch.from_numpy(cache.read("targets/final_scale", keep_N))[:, None] @ W_U_DV

    def kl(s: float) -> float:
        return float(
            (model_NV.exp() * (model_NV - (log_mean_V + s * written_NV).log_softmax(-1))).sum(1).mean()
        )

    assert evaluation.of_heads["written"][3][1].kl == pytest.approx(kl(1.0), rel=1e-3)
    best = optimize.minimize_scalar(kl, bracket=(-1, 1)).fun
    assert best < evaluation.of_heads["scaled-write"][3][1].kl < best + 0.02
