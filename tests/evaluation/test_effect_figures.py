"""Readings held against effects: against dense logits, in one dimension and over groups."""

import numpy as np
import pytest
import torch

from alens.evaluation import effect_figures
from alens.evaluation.additions import Addition, CentredProducts

N, E, D, V, GROUPS = 60, 4, 7, 90, 5


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def additions(W_U_DV: torch.Tensor) -> dict[str, Addition]:
    shared_FV = random(E, V, seed=1)
    return {
        "with a constant": Addition(
            features_NF=random(N, E, seed=2), weight_FV=shared_FV, constant_V=random(V, seed=3) + 2
        ),
        "of the same map": Addition(features_NF=random(N, E, seed=4), weight_FV=shared_FV),
        "of the residual": Addition(features_NF=0.5 * random(N, D, seed=5), weight_FV=W_U_DV),
        "nothing": Addition(features_NF=torch.zeros(N, D), weight_FV=W_U_DV),
    }


def test_figures_are_those_of_dense_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_figures, "CHANGED", 2.0)
    W_U_DV = random(D, V, seed=0) + 1
    effect_ND = random(N, D, seed=5) + 0.3
    group_N = torch.arange(N) % GROUPS
    said = additions(W_U_DV)
    sums_GQC = effect_figures.effect_sums(effect_ND, said, CentredProducts(W_U_DV), group_N, GROUPS).numpy()
    figures = effect_figures.effect_figures(sums_GQC, seed=0, resamples=50)
    F_NV = (effect_ND @ W_U_DV).double().numpy()
    F_NV -= F_NV.mean(1, keepdims=True)
    for (name, addition), judged in zip(said.items(), figures, strict=True):
        A_NV = (addition.features_NF @ addition.weight_FV).double().numpy()
        A_NV = A_NV if addition.constant_V is None else A_NV + addition.constant_V.numpy()
        A_NV = A_NV - A_NV.mean(1, keepdims=True)
        assert judged.explained_variance == pytest.approx(
            1 - ((F_NV - A_NV) ** 2).sum() / (F_NV**2).sum(), abs=1e-4
        )
        changed_NV = np.abs(F_NV) > 2.0
        assert judged.sign_agreement == pytest.approx((A_NV * F_NV > 0)[changed_NV].mean(), abs=1e-3)
        top_NK = np.argsort(-np.abs(F_NV), axis=1)[:, :10]
        same = np.take_along_axis(A_NV * F_NV > 0, top_NK, axis=1).mean()
        assert judged.top10_sign_agreement == pytest.approx(same, abs=1e-3)
        if name == "nothing":
            assert judged.correlation is None and judged.explained_variance == 0
            continue
        assert judged.correlation == pytest.approx(np.corrcoef(A_NV.ravel(), F_NV.ravel())[0, 1], abs=1e-4)
        low, high = judged.intervals["correlation"] or (0.0, 0.0)
        assert low < judged.correlation < high
    size = effect_figures.head_effect(sums_GQC, V)
    assert size.size == pytest.approx(F_NV.std(), rel=1e-4)
    assert size.changed_tokens == pytest.approx((np.abs(F_NV) > 2.0).sum(1).mean())


def test_signs_are_asked_of_some_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_figures, "SIGN_ROWS", 20)
    W_U_DV, group_N = random(D, V, seed=0), torch.zeros(N, dtype=torch.long)
    same = {"itself": Addition(features_NF=random(N, D, seed=5), weight_FV=W_U_DV)}
    sums_GQC = effect_figures.effect_sums(random(N, D, seed=5), same, CentredProducts(W_U_DV), group_N, 1)
    assert sums_GQC[0, 0, effect_figures.TOP] == 20 * 10 and sums_GQC[0, 0, effect_figures.ROWS] == N
    (figures,) = effect_figures.effect_figures(sums_GQC.numpy(), seed=0, resamples=2)
    assert figures.correlation == pytest.approx(1) and figures.explained_variance == pytest.approx(
        1, abs=1e-5
    )
    assert figures.sign_agreement == figures.top10_sign_agreement == 1
    assert figures.intervals == dict.fromkeys(effect_figures.FIGURES)
