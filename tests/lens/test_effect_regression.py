"""The map of an effect lens on effects that are made by hand, where the right one is known."""

import numpy as np
import pytest

from alens.lens.effect_regression import RIDGES, EffectMoments, logit_metric, regress_effect, squared

E, D, V = 6, 10, 40


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def test_moments_give_what_a_map_leaves_of_the_effect_in_each_group(draw: np.random.Generator) -> None:
    x_NE, map_ED = draw.normal(size=(30, E)), draw.normal(size=(E, D))
    effect_ND = draw.normal(size=(30, D)).astype(np.float32)
    group_N = np.repeat([4, 9, 2], 10)
    W_U_DV = draw.normal(size=(D, V)).astype(np.float32)
    metric_DD = logit_metric(W_U_DV)
    moments = EffectMoments.of_rows(x_NE, effect_ND, group_N, metric_DD)
    logits_NV = (effect_ND - x_NE @ map_ED) @ W_U_DV
    left_N = np.square(logits_NV - logits_NV.mean(1, keepdims=True)).sum(1)
    expected_G = [left_N[group_N == group].sum() for group in (2, 4, 9)]
    np.testing.assert_allclose(moments.left_G(map_ED, metric_DD), expected_G, rtol=1e-5)
    assert squared(effect_ND[:10], metric_DD) == pytest.approx(float(moments.squares_G[1]), rel=1e-6)


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.999), (1.0, 0.8)])
def test_a_linear_effect_is_recovered(draw: np.random.Generator, noise: float, least: float) -> None:
    map_ED, metric_DD = draw.normal(size=(E, D)), np.eye(D)

    def rows(number: int) -> EffectMoments:
        x_NE = draw.normal(size=(number, E))
        effect_ND = (x_NE @ map_ED + noise * draw.normal(size=(number, D))).astype(np.float32)
        return EffectMoments.of_rows(x_NE, effect_ND, np.arange(number) % 5, metric_DD)

    ours_ED, ridge = regress_effect(rows(400), draw.normal(size=(E, D)), metric_DD)
    assert 1 - np.square(ours_ED - map_ED).sum() / np.square(map_ED).sum() > 0.99
    judged = rows(400)
    assert 1 - judged.left_G(ours_ED, metric_DD).sum() / judged.squares_G.sum() > least
    assert ridge < 0.1


def test_where_rows_tell_nothing_more_the_map_is_a_multiple_of_the_direct_write(
    draw: np.random.Generator,
) -> None:
    """A small effect, much noise, few rows: the penalty is the largest, and the head's own write remains."""
    towards_ED, metric_DD = draw.normal(size=(E, D)), np.eye(D)
    x_NE = draw.normal(size=(40, E))
    effect_ND = (0.7 * x_NE @ towards_ED + 3 * draw.normal(size=(40, D))).astype(np.float32)
    moments = EffectMoments.of_rows(x_NE, effect_ND, np.arange(40) % 4, metric_DD)
    map_ED, ridge = regress_effect(moments, towards_ED, metric_DD)
    assert ridge >= 10.0
    cosine = (map_ED * towards_ED).sum() / np.linalg.norm(map_ED) / np.linalg.norm(towards_ED)
    assert cosine > 0.98
    assert 0.4 < np.linalg.norm(map_ED) / np.linalg.norm(towards_ED) < 1.0


def test_a_head_that_does_nothing_and_a_single_group_give_finite_maps(draw: np.random.Generator) -> None:
    metric_DD = np.eye(D)
    nothing = EffectMoments.of_rows(
        np.zeros((20, E)), np.zeros((20, D), np.float32), np.arange(20) % 3, metric_DD
    )
    map_ED, _ = regress_effect(nothing, draw.normal(size=(E, D)), metric_DD)
    np.testing.assert_array_equal(map_ED, 0.0)
    single = EffectMoments.of_rows(
        draw.normal(size=(20, E)), draw.normal(size=(20, D)).astype(np.float32), np.zeros(20, int), metric_DD
    )
    map_ED, ridge = regress_effect(single, draw.normal(size=(E, D)), metric_DD)
    assert ridge == RIDGES[-1] and np.isfinite(map_ED).all()
