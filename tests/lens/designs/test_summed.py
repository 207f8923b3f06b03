"""The summed design: one loss for the heads together."""

from typing import Any

import torch

from alens.lens.designs.readout import Readout
from alens.lens.designs.summed import Summed


def test_its_logits_are_the_sum_of_what_the_heads_maps_say(
    ground: Any, values: torch.Tensor, disturbed: Any
) -> None:
    design = Summed(ground(values))
    disturbed(design)
    maps = design.maps()
    summed = design(values, lambda readout: readout.logits(0, slice(None))).detach()
    expected = sum(maps.logits(head, values[:, head]) for head in range(2))
    torch.testing.assert_close(summed, expected, rtol=1e-4, atol=1e-4)


def test_there_is_one_loss_and_it_starts_as_the_mean_output(ground: Any, values: torch.Tensor) -> None:
    design = Summed(ground(values))
    readout: Readout = design(values, lambda readout: readout)
    assert design.num_losses == len(readout.features_UNF) == len(readout.bias_UV) == 1
    start = readout.logits(0, slice(None))
    torch.testing.assert_close(start, design.ground.log_mean_output_V.expand(len(values), -1))


def test_each_head_has_an_equal_part_of_the_bias(ground: Any, values: torch.Tensor) -> None:
    _, bias_HV = Summed(ground(values)).affine()
    torch.testing.assert_close(bias_HV[0], bias_HV[1])
