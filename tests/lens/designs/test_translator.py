"""The translator: affine maps that are made from the unembedding."""

from typing import Any

import torch

from alens.lens.designs.translator import Translator, white_unembedding


def row_space_error(weight_EV: torch.Tensor, W_U_DV: torch.Tensor) -> float:
    """The part of a weight that no combination of the rows of the unembedding gives."""
    solved_DE = torch.linalg.lstsq(W_U_DV.double().T, weight_EV.double().T).solution
    return float((weight_EV.double() - solved_DE.T @ W_U_DV.double()).abs().max())


def test_weights_lie_in_the_row_space_of_the_unembedding(
    ground: Any, values: torch.Tensor, disturbed: Any
) -> None:
    design = Translator(ground(values))
    disturbed(design)
    maps, W_U_DV = design.maps(), design.ground.W_U_DV
    for head in range(2):
        assert row_space_error(maps.weight_HEV[head], W_U_DV) < 1e-4
        centred_V = design.affine()[1][head].detach() - design.ground.b_U_V
        assert row_space_error(centred_V[None], W_U_DV) < 1e-4
    assert row_space_error(torch.eye(17)[:1], W_U_DV) > 0.1


def test_in_the_coordinates_of_z_it_is_a_map_into_the_stream_then_the_unembedding(
    ground: Any, values: torch.Tensor, disturbed: Any
) -> None:
    design = Translator(ground(values))
    disturbed(design)
    W_U_DV, b_U_V = (part.double() for part in design.ground.unembedding())
    root_DD = torch.linalg.lstsq(W_U_DV.T, design.basis_DV.double().T).solution.T  # basis = root W_U
    white_HNE = design.ground.whitening.white(values).double()
    maps = design.maps()
    for head in range(2):
        moved_ND = (
            white_HNE[head] @ design.translator[head].double() + design.shift[head].double()
        ) @ root_DD
        torch.testing.assert_close(
            maps.logits(head, values[:, head]).double(), moved_ND @ W_U_DV + b_U_V, rtol=1e-4, atol=1e-4
        )


def test_it_starts_near_the_mean_output_whatever_z_is(ground: Any, values: torch.Tensor) -> None:
    design = Translator(ground(values))
    weight_HEV, bias_HV = (part.detach() for part in design.affine())
    assert bool((weight_HEV == 0).all())
    mean_V = design.ground.log_mean_output_V.exp()

    def kl(logits_V: torch.Tensor) -> float:
        return float((mean_V * (mean_V.log() - logits_V.log_softmax(-1))).sum())

    assert kl(bias_HV[0]) < 0.5 * kl(design.ground.b_U_V)
    assert torch.equal(bias_HV[0], bias_HV[1])


def test_the_start_is_the_least_squares_fit_under_the_mean_output(ground: Any, values: torch.Tensor) -> None:
    start = ground(values)
    basis_DV, shift_D = white_unembedding(start)
    probs_V = start.log_mean_output_V.double().exp()
    wanted_V = start.log_mean_output_V.double() - start.b_U_V.double()
    design_VF = torch.cat([basis_DV.double().T, torch.ones(17, 1, dtype=torch.float64)], 1)  # and a constant
    root_V1 = probs_V.sqrt()[:, None]
    best_F = torch.linalg.lstsq(root_V1 * design_VF, root_V1 * wanted_V[:, None]).solution[:, 0]
    torch.testing.assert_close(shift_D.double(), best_F[:-1], rtol=1e-3, atol=1e-3)


def test_rows_of_the_basis_are_uncorrelated_under_the_mean_output(ground: Any, values: torch.Tensor) -> None:
    start = ground(values)
    basis_DV, _ = white_unembedding(start)
    probs_V = start.log_mean_output_V.exp()
    centred_DV = basis_DV - (basis_DV @ probs_V)[:, None]
    torch.testing.assert_close((centred_DV * probs_V) @ centred_DV.T, torch.eye(6), rtol=1e-3, atol=1e-3)
