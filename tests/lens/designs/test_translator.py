"""The translator: maps into the space that the unembedding reads, and a bias that follows from them."""

from typing import Any

import torch

from alens.lens.designs.translator import Translator
from alens.lens.designs.white_unembedding import WhiteUnembedding


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
        assert row_space_error(maps.affine(head)[0], W_U_DV) < 1e-4
    assert row_space_error(torch.eye(17)[:1], W_U_DV) > 0.1


def test_the_maps_say_what_was_trained(ground: Any, values: torch.Tensor, disturbed: Any) -> None:
    design = Translator(ground(values))
    disturbed(design)
    maps, white_HNE = design.maps(), design.ground.whitening.white(values)
    weight_HEV, bias_HV = (part.detach() for part in design.affine())
    for head in range(2):
        expected_NV = white_HNE[head] @ weight_HEV[head] + bias_HV[head]
        torch.testing.assert_close(maps.logits(head, values[:, head]), expected_NV, rtol=1e-4, atol=1e-4)


def test_the_bias_is_a_shift_and_half_the_spread_of_the_logits(
    ground: Any, values: torch.Tensor, disturbed: Any
) -> None:
    design = Translator(ground(values))
    disturbed(design)
    log_mean_V, W_U_DV = design.ground.log_mean_output_V, design.ground.W_U_DV
    for head in range(2):
        weight_EV, bias_V = (part[head].detach() for part in design.affine())
        centred_EV = weight_EV - (weight_EV @ log_mean_V.exp())[:, None]
        shifted_V = bias_V - log_mean_V + centred_EV.square().sum(0) / 2
        assert row_space_error(shifted_V[None], W_U_DV) < 1e-4


def test_it_starts_at_the_mean_output_whatever_z_is(ground: Any, values: torch.Tensor) -> None:
    design = Translator(ground(values))
    for maps in (design.maps(), design.nothing()):
        for head in range(2):
            said_NV = maps.logits(head, values[:, head])
            expected_NV = design.ground.log_mean_output_V.expand(len(values), -1)
            torch.testing.assert_close(said_NV, expected_NV, rtol=1e-6, atol=1e-6)


def test_rows_of_the_basis_are_uncorrelated_under_the_mean_output(ground: Any, values: torch.Tensor) -> None:
    start = ground(values)
    basis_DV = WhiteUnembedding.on(start).basis_DV
    probs_V = start.log_mean_output_V.exp()
    centred_DV = basis_DV - (basis_DV @ probs_V)[:, None]
    torch.testing.assert_close((centred_DV * probs_V) @ centred_DV.T, torch.eye(6), rtol=1e-3, atol=1e-3)
