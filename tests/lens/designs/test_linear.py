"""The linear design: where it starts."""

from typing import Any

import torch

from alens.lens.designs.linear import Linear
from alens.lens.designs.readout import Readout


def test_it_starts_as_the_mean_output_for_every_z(ground: Any, values: torch.Tensor) -> None:
    start = ground(values)
    logits = Linear(start)(values, lambda readout: readout.logits(1, slice(0, 5)))
    torch.testing.assert_close(logits, start.log_mean_output_V.expand(5, -1))


def test_it_is_a_weight_and_a_bias_on_white_values(ground: Any, values: torch.Tensor, disturbed: Any) -> None:
    design = Linear(ground(values))
    disturbed(design)
    readout: Readout = design(values, lambda readout: readout)
    assert torch.equal(readout.weight_UFV, design.weight) and torch.equal(readout.bias_UV, design.bias)
    torch.testing.assert_close(readout.features_UNF, design.ground.whitening.white(values))
