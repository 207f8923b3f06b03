"""The linear design: where it starts, and what it hands over."""

import torch

from alens.lens.designs.linear import Linear

LOG_MEAN_V = torch.tensor([0.5, 0.3, 0.2]).log()


def test_it_starts_as_the_mean_output_for_every_z() -> None:
    design = Linear(num_heads=2, d_head=4, log_mean_output_V=LOG_MEAN_V)
    z_HNE = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    probs_HNV = design(lambda w, b: (torch.bmm(z_HNE, w) + b[:, None]).softmax(-1))
    torch.testing.assert_close(probs_HNV, LOG_MEAN_V.exp().expand(2, 5, 3))


def test_heads_share_no_parameter() -> None:
    design = Linear(num_heads=2, d_head=4, log_mean_output_V=LOG_MEAN_V)
    with torch.no_grad():
        design.bias[0] += 1
    torch.testing.assert_close(design.bias[1], LOG_MEAN_V)


def test_parameters_get_gradients_through_what_uses_them() -> None:
    design = Linear(num_heads=1, d_head=2, log_mean_output_V=LOG_MEAN_V)
    design(lambda w, b: w.sum() * 2 + b.sum() * 3).backward()
    assert design.weight.grad is not None and bool((design.weight.grad == 2).all())
    assert design.bias.grad is not None and bool((design.bias.grad == 3).all())
