"""The DeepSpeed engine: the steps of the bare optimiser, and a state that any ZeRO stage can take up."""

import pytest
import torch

from alens.fit.distributed import join
from alens.fit.engine import Engine
from alens.fit.lens_module import LensModule
from alens.fit.objectives.forward_kl import ForwardKL
from alens.fit.optimiser import AveragedAdam
from alens.lens.designs.design import Ground
from alens.lens.designs.linear import Linear
from alens.lens.whitening import Whitening
from alens.rows.teacher import CompressedTeacher

H, N, E, V, STEPS = 2, 12, 3, 17, 6
STAGES = (0, 1, 2, 3)


def module() -> LensModule:
    unit = Whitening(mean_HE=torch.zeros(H, E), scale_HEE=torch.eye(E).expand(H, E, E).clone())
    ground = Ground(whitening=unit, log_mean_output_V=torch.full((V,), 1 / V).log())
    return LensModule({layer: Linear(ground) for layer in (0, 2)}, ForwardKL())


def batch(step: int) -> tuple[dict[int, torch.Tensor], CompressedTeacher]:
    random = torch.Generator().manual_seed(step)
    ids_NJ = torch.randint(0, V, (N, 4), generator=random)
    weights_NJ = torch.rand(N, 4, generator=random).softmax(-1)
    z_NHE = {layer: torch.randn(N, H, E, generator=random) for layer in (0, 2)}
    return z_NHE, CompressedTeacher(ids_NJ, weights_NJ, torch.zeros(N))


def lr(step: int) -> float:
    return 0.1 * (1 - step / STEPS)


def engine(zero: int) -> Engine:
    made = Engine(module(), join("cpu"), zero=zero, batch_rows=N, lr=0.1)
    made.start()
    return made


def run(engine: Engine, start: int, stop: int, active: dict[int, list[int]] | None = None) -> None:
    for step in range(start, stop):
        engine.step(*batch(step), lr(step), active)


def test_deepspeed_neither_waits_for_a_gpu_nor_copies_gradients_that_nobody_shares() -> None:
    alone, partitioned = engine(0)._engine, engine(1)._engine
    assert not alone.tput_timer.config.enabled and not partitioned.tput_timer.config.enabled
    assert not alone.enable_backward_allreduce and partitioned.enable_backward_allreduce


def test_it_takes_the_steps_of_the_bare_optimiser() -> None:
    plain = module()
    optimizer = AveragedAdam(plain.parameters(), lr=0.1)
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


@pytest.mark.parametrize("zero", STAGES)
def test_large_gradients_are_not_clipped(zero: int) -> None:
    """Clipping goes by the norm of all heads together, so the lens of a head would depend on which others are fitted."""
    z_NHE, teacher = batch(0)
    large = {layer: 100 * values for layer, values in z_NHE.items()}
    plain, ours = module(), engine(zero)
    plain(large, teacher).sum().backward()
    norm = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]).norm()
    assert norm > 10
    ours.step(large, teacher, 0.1)
    state = ours.state()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(state[f"{name}/exp_avg"], 0.1 * parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zero", STAGES)
def test_a_start_changes_nothing(zero: int) -> None:
    fresh = dict(module().named_parameters())
    state = engine(zero).state()
    for name, parameter in fresh.items():
        assert torch.equal(state[name], parameter)
        for key in ("exp_avg", "exp_avg_sq"):
            assert bool((state[f"{name}/{key}"] == 0).all())


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_zero_stage_learns_the_same(zero: int) -> None:
    partitioned, whole = engine(zero), engine(0)
    run(partitioned, 0, STEPS)
    run(whole, 0, STEPS)
    state, expected = partitioned.state(), whole.state()
    assert state.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("before", "after"), [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 3), (3, 2), (2, 0)]
)
def test_a_state_taken_out_and_put_back_goes_on_as_if_nothing_happened(before: int, after: int) -> None:
    undisturbed = engine(before)
    run(undisturbed, 0, 3)
    state = undisturbed.state()
    run(undisturbed, 3, STEPS)
    resumed = Engine(module(), join("cpu"), zero=after, batch_rows=N, lr=0.1)
    resumed.restore(state, 3)
    run(resumed, 3, STEPS)
    state, expected = resumed.state(), undisturbed.state()
    for name in expected:
        if before == after:
            assert torch.equal(state[name], expected[name]), name
        else:
            torch.testing.assert_close(state[name], expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("zero", STAGES)
def test_a_head_that_is_not_trained_any_more_changes_no_step_of_the_others(zero: int) -> None:
    """Bit for bit: head 1 of layer 0, and the whole layer 2, are left out from step 3 on."""
    all_trained, some_trained = engine(zero), engine(zero)
    run(all_trained, 0, STEPS)
    run(some_trained, 0, 3)
    run(some_trained, 3, STEPS, {0: [0], 2: []})
    expected, state = all_trained.state(), some_trained.state()
    for name in ("weight", "bias"):
        assert torch.equal(state[f"designs.0.{name}"][0], expected[f"designs.0.{name}"][0])
        for part in (f"designs.0.{name}", f"designs.2.{name}"):
            assert not torch.equal(state[part][1], expected[part][1])


def test_losses_of_heads_that_are_not_trained_are_zero() -> None:
    whole, some = engine(0), engine(0)
    loss_LU = some.step(*batch(0), 0.1, {0: [1], 2: []})
    assert torch.equal(loss_LU[0, 1], whole.step(*batch(0), 0.1)[0, 1])
    assert loss_LU[0, 0] == 0 and bool((loss_LU[1] == 0).all())


@pytest.mark.parametrize("zero", STAGES)
def test_averages_are_whole(zero: int) -> None:
    ours = engine(zero)
    run(ours, 0, 2)
    state, averages = ours.state(), ours.averages()
    assert averages.keys() == dict(module().named_parameters()).keys()
    for name, value in averages.items():
        assert torch.equal(value, state[f"{name}/average"])


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
