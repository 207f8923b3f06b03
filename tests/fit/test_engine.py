"""The DeepSpeed engine: the steps of plain AdamW, and a state that any ZeRO stage can take up."""

import pytest
import torch

from alens.fit.distributed import join
from alens.fit.engine import BETAS, Engine
from alens.fit.module import LensModule
from alens.lens.whitening import Whitening
from alens.teacher import CompressedTeacher

H, N, E, V, STEPS = 2, 12, 3, 17, 6
STAGES = (0, 1, 2, 3)


def module() -> LensModule:
    unit = Whitening(mean_HE=torch.zeros(H, E), scale_HEE=torch.eye(E).expand(H, E, E).clone())
    return LensModule(whitening={0: unit, 2: unit}, log_mean_output_V=torch.full((V,), 1 / V).log())


def batch(step: int) -> tuple[dict[int, torch.Tensor], CompressedTeacher]:
    random = torch.Generator().manual_seed(step)
    ids_NJ = torch.randint(0, V, (N, 4), generator=random)
    weights_NJ = torch.rand(N, 4, generator=random).softmax(-1)
    z_NHE = {layer: torch.randn(N, H, E, generator=random) for layer in (0, 2)}
    return z_NHE, CompressedTeacher(ids_NJ, weights_NJ, torch.zeros(N))


def lr(step: int) -> float:
    return 0.1 * (1 - step / STEPS)


def engine(zero: int) -> Engine:
    return Engine(module(), join("cpu"), zero=zero, batch_rows=N, lr=0.1)


def run(of: Engine, start: int, stop: int) -> None:
    for step in range(start, stop):
        of.step(*batch(step), lr(step))


def test_it_takes_the_steps_of_plain_adamw() -> None:
    plain = module()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, betas=BETAS, weight_decay=0.0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = lr(step)
        optimizer.zero_grad()
        plain(*batch(step)).sum().backward()
        optimizer.step()
    ours = engine(0)
    run(ours, 0, STEPS)
    state = ours.state()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(state[name], parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_zero_stage_learns_the_same(zero: int) -> None:
    partitioned, whole = engine(zero), engine(0)
    run(partitioned, 0, STEPS)
    run(whole, 0, STEPS)
    found, expected = partitioned.state(), whole.state()
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("before", "after"), [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 3), (3, 2), (2, 0)]
)
def test_a_state_taken_out_and_put_back_goes_on_as_if_nothing_happened(before: int, after: int) -> None:
    undisturbed = engine(before)
    run(undisturbed, 0, 3)
    state = undisturbed.state()
    run(undisturbed, 3, STEPS)
    resumed = engine(after)
    resumed.restore(state, 3)
    run(resumed, 3, STEPS)
    found, expected = resumed.state(), undisturbed.state()
    for name in expected:
        if before == after:
            assert torch.equal(found[name], expected[name]), name
        else:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("zero", STAGES)
def test_the_gathered_module_has_whole_parameters(zero: int) -> None:
    ours = engine(zero)
    run(ours, 0, 2)
    state = ours.state()
    with ours.gathered() as whole:
        assert torch.equal(whole.designs["2"].weight, state["designs.2.weight"])


def test_the_state_does_not_change_with_later_steps() -> None:
    ours = engine(0)
    run(ours, 0, 2)
    state = ours.state()
    before = {name: value.clone() for name, value in state.items()}
    run(ours, 2, 4)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_losses_come_by_layer_and_head() -> None:
    loss_LH = engine(0).step(*batch(0), 0.1)
    assert loss_LH.shape == (2, H) and not loss_LH.requires_grad
