"""The low-rank design: a product, and the ranks that it can have."""

from typing import Any

import pytest
import torch

from alens.errors import RequestError
from alens.lens.designs.low_rank import LowRank


def test_its_weight_is_the_product_and_has_that_rank(
    ground: Any, values: torch.Tensor, disturbed: Any
) -> None:
    design = LowRank(ground(values), rank=2)
    disturbed(design)
    weight_HEV, bias_HV = design.affine()
    torch.testing.assert_close(weight_HEV[1], design.down[1] @ design.up[1])
    assert torch.equal(bias_HV, design.bias)
    assert torch.linalg.matrix_rank(design.maps().weight_HEV, rtol=1e-4).tolist() == [2, 2]


def test_it_starts_as_the_mean_output_with_a_gradient(ground: Any, values: torch.Tensor) -> None:
    design = LowRank(ground(values), rank=3)
    logits_NV = design(values, lambda readout: readout.logits(0, slice(None)))
    torch.testing.assert_close(logits_NV, design.ground.log_mean_output_V.expand(len(values), -1))
    logits_NV.square().sum().backward()
    assert design.up.grad is not None and bool((design.up.grad[0] != 0).any())


@pytest.mark.parametrize("rank", [0, -1, 5, 1.5, "2", True, None])
def test_a_rank_that_there_is_not_is_refused(ground: Any, values: torch.Tensor, rank: Any) -> None:
    with pytest.raises(RequestError, match=rf"rank is {rank!r}: it must be a whole number in 1 \.\. 4"):
        LowRank(ground(values), rank=rank)
