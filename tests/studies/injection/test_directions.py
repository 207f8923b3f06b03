"""Directions of tokens, against the matrices they are made of and against what they are to raise."""

import pytest
import torch

from alens.errors import RequestError
from alens.lens.maps import AffineMaps, TranslatedMaps
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.studies.injection.directions import (
    at_random,
    by_effect,
    by_lens,
    by_unembedding,
    by_written,
    mean_log_probability,
    within,
)
from alens.studies.injection.typical import Typical

E, D, V = 4, 12, 30
"""The sizes of the small head that most tests make up."""

SHE = Term(text="she", ids=(3, 7))
HE = Term(text="he", ids=(5,))


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def W_O() -> torch.Tensor:
    return random(E, D, seed=1) * torch.tensor([3.0, 1.0, 0.3, 0.1])[:, None]


@pytest.fixture
def maps() -> AffineMaps:
    return AffineMaps(weight_HEV=random(1, E, V, seed=2), bias_HV=random(1, V, seed=3))


def rows() -> torch.Tensor:
    """(N, E) values of the head."""
    return random(500, E, seed=4) @ random(E, E, seed=5) + random(E, seed=6)


@pytest.fixture
def typical() -> Typical:
    values = rows()
    return Typical(
        mean_E=values.mean(0),
        covariance_EE=torch.cov(values.T),
        output_norm=1.0,
        final_mean_D=random(D, seed=7),
        rows=500,
    )


def test_it_is_the_papers_columns_less_what_all_logits_share(
    maps: AffineMaps, W_O: torch.Tensor, typical: Typical
) -> None:
    on_outputs_DV = torch.linalg.pinv(W_O) @ maps.weight_HEV[0]
    p_V = (typical.mean_E @ maps.weight_HEV[0] + maps.bias_HV[0]).softmax(-1)
    expected_D = on_outputs_DV[:, 5] - on_outputs_DV @ p_V
    found_D = by_lens(maps, W_O, typical, [HE], "gradient")
    torch.testing.assert_close(found_D, expected_D / expected_D.norm(), atol=1e-5, rtol=1e-4)


def test_the_forms_of_a_term_count_by_their_probability_and_terms_count_alike(
    maps: AffineMaps, W_O: torch.Tensor, typical: Typical
) -> None:
    on_outputs_DV = torch.linalg.pinv(W_O) @ maps.weight_HEV[0]
    p_V = (typical.mean_E @ maps.weight_HEV[0] + maps.bias_HV[0]).softmax(-1)
    share = p_V[3] / (p_V[3] + p_V[7])
    she_D = share * on_outputs_DV[:, 3] + (1 - share) * on_outputs_DV[:, 7]
    expected_D = (she_D + on_outputs_DV[:, 5]) / 2 - on_outputs_DV @ p_V
    found_D = by_lens(maps, W_O, typical, [SHE, HE], "gradient")
    torch.testing.assert_close(found_D, expected_D / expected_D.norm(), atol=1e-5, rtol=1e-4)


def test_no_direction_of_the_same_norm_raises_the_reading_more(
    maps: AffineMaps, W_O: torch.Tensor, typical: Typical
) -> None:
    def reading(added_D: torch.Tensor) -> float:
        values_E = typical.mean_E + added_D @ torch.linalg.pinv(W_O)
        return float(mean_log_probability(maps.logits(0, values_E[None])[0].log_softmax(-1), [SHE]))

    step = 0.01
    best = reading(step * by_lens(maps, W_O, typical, [SHE], "gradient"))
    others = at_random(W_O, D, 200, 0, torch.device("cpu"))
    assert best > reading(torch.zeros(D))
    assert best >= max(reading(step * other_D) for other_D in others)


def test_the_scaled_direction_is_what_the_output_does_when_the_reading_rises(
    maps: AffineMaps, W_O: torch.Tensor, typical: Typical
) -> None:
    values_NE = rows()
    p_V = (typical.mean_E @ maps.weight_HEV[0] + maps.bias_HV[0]).softmax(-1)
    reading_N = values_NE @ (maps.weight_HEV[0][:, 5] - maps.weight_HEV[0] @ p_V)
    outputs_ND = values_NE @ W_O
    expected_D = ((reading_N - reading_N.mean())[:, None] * (outputs_ND - outputs_ND.mean(0))).mean(0)
    found_D = by_lens(maps, W_O, typical, [HE], "covariance")
    torch.testing.assert_close(found_D, expected_D / expected_D.norm(), atol=1e-4, rtol=1e-3)


def test_a_map_with_a_norm_has_its_gradient_in_the_residual_stream() -> None:
    maps = TranslatedMaps(
        translator_HED=random(1, D, D, seed=8),
        shift_HD=random(1, D, seed=9),
        gain_HD=random(1, D, seed=10),
        offset_HD=random(1, D, seed=11),
        W_U_DV=random(D, V, seed=12),
        b_U_V=random(V, seed=13),
    )
    mean_D = random(D, seed=14)
    here = Typical(mean_E=mean_D, covariance_EE=torch.eye(D), output_norm=1.0, final_mean_D=mean_D, rows=2)

    def reading(x_D: torch.Tensor) -> float:
        return float(maps.logits(0, x_D[None])[0].log_softmax(-1)[5])

    step = 1e-2
    slopes = [
        (reading(mean_D + step * axis) - reading(mean_D - step * axis)) / (2 * step) for axis in torch.eye(D)
    ]
    expected_D = torch.tensor(slopes)
    found_D = by_lens(maps, None, here, [HE], "gradient")
    torch.testing.assert_close(found_D, expected_D / expected_D.norm(), atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(found_D, by_lens(maps, None, here, [HE], "covariance"))


def test_the_unembeddings_is_its_column_less_what_all_logits_share(
    reader: LensedModel, W_O: torch.Tensor
) -> None:
    model = reader.model
    W_U_DV = model.W_U_DV
    final_D = random(W_U_DV.shape[0], seed=15)
    here = Typical(mean_E=final_D, covariance_EE=torch.eye(2), output_norm=1.0, final_mean_D=final_D, rows=2)
    p_V = (final_D @ W_U_DV + model.b_U_V).softmax(-1)
    # Back through the layer norm at a fixed scale: times its gain, and what all entries share makes no difference.
    expected_D = (W_U_DV[:, 5] - W_U_DV @ p_V) * model.bridge.ln_final.weight
    expected_D = expected_D - expected_D.mean()
    found_D = by_unembedding(model, None, here, [HE])
    torch.testing.assert_close(found_D, expected_D / expected_D.norm(), atol=1e-5, rtol=1e-4)
    kept_D = by_unembedding(model, model.W_O_LHED[3, 4], here, [HE])
    basis_DE = torch.linalg.qr(model.W_O_LHED[3, 4].T).Q
    part_D = basis_DE @ (basis_DE.T @ expected_D)
    torch.testing.assert_close(kept_D, part_D / part_D.norm(), atol=1e-5, rtol=1e-4)


def test_the_written_direction_raises_what_the_head_writes_most(reader: LensedModel) -> None:
    """Among all directions of one norm that the head can write, on the logits of the terms less that of all tokens."""
    model, terms = reader.model, [SHE, HE]
    norm, W_O_ED = model.final_norm, model.W_O_LHED[3, 4]
    direction_D = by_written(model, W_O_ED, terms)
    assert float(direction_D.norm()) == pytest.approx(1.0)
    torch.testing.assert_close(within(direction_D, W_O_ED), direction_D, atol=1e-4, rtol=1e-3)

    def written(part_D: torch.Tensor) -> float:
        logits_V = norm.linear(part_D) @ model.W_U_DV
        return float(logits_V[[7, 5]].mean() - logits_V.mean())  # one token of each term

    others = at_random(W_O_ED, len(direction_D), 20, 0, torch.device("cpu"))
    near = [direction_D + 0.1 * other_D for other_D in others]
    best = written(direction_D)
    assert best > 0
    assert all(written(other_D / other_D.norm()) < best for other_D in [*others, *near])


def test_the_effect_lens_direction_raises_what_the_lens_says_most(
    reader: LensedModel, effect_reader: LensedModel
) -> None:
    """Among all directions of one norm that the head can write, on the logits of the terms less that of all tokens."""
    model, W_O_ED = reader.model, reader.model.W_O_LHED[3, 4]
    assert effect_reader.effect is not None
    (map_ED,), _ = effect_reader.effect.maps(3, [4])
    direction_D = by_effect(model, map_ED, W_O_ED, [SHE, HE])
    assert float(direction_D.norm()) == pytest.approx(1.0)
    torch.testing.assert_close(within(direction_D, W_O_ED), direction_D, atol=1e-4, rtol=1e-3)

    def raised(part_D: torch.Tensor) -> float:
        logits_V = part_D @ torch.linalg.pinv(W_O_ED) @ map_ED @ model.W_U_DV
        return float(logits_V[[7, 5]].mean() - logits_V.mean())  # one token of each term

    others = at_random(W_O_ED, len(direction_D), 20, 0, torch.device("cpu"))
    near = [direction_D + 0.1 * other_D for other_D in others]
    assert all(raised(other_D / other_D.norm()) < raised(direction_D) for other_D in [*others, *near])


def test_what_the_head_can_write_is_kept_and_the_rest_is_not(W_O: torch.Tensor) -> None:
    written_D = random(E, seed=16) @ W_O
    torch.testing.assert_close(within(written_D, W_O), written_D, atol=1e-4, rtol=1e-4)
    outside_D = random(D, seed=17)
    outside_D -= within(outside_D, W_O)
    assert float(outside_D.norm()) > 1.0
    assert float((W_O @ outside_D).abs().max()) < 1e-4
    assert float(within(outside_D, W_O).abs().max()) < 1e-4


def test_random_directions_are_units_of_the_heads_space_and_of_their_seed(W_O: torch.Tensor) -> None:
    cpu = torch.device("cpu")
    first, second = at_random(W_O, D, 2, 0, cpu)
    assert float(first.norm()) == pytest.approx(1.0) and not torch.allclose(first, second)
    torch.testing.assert_close(within(first, W_O), first, atol=1e-5, rtol=1e-4)
    assert torch.equal(at_random(W_O, D, 1, 0, cpu)[0], first)
    assert not torch.allclose(at_random(W_O, D, 1, 1, cpu)[0], first)
    anywhere = at_random(None, D, 1, 0, cpu)[0]
    assert not torch.allclose(within(anywhere, W_O), anywhere, atol=1e-2)


def test_a_lens_that_reads_nothing_has_no_direction(W_O: torch.Tensor, typical: Typical) -> None:
    nothing = AffineMaps(weight_HEV=torch.zeros(1, E, V), bias_HV=torch.zeros(1, V))
    with pytest.raises(RequestError, match="the lens assigns no direction to these tokens"):
        by_lens(nothing, W_O, typical, [HE], "gradient")
