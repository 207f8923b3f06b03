"""Averaged Adam: Adam's own steps, the mean of their ends, and nothing that a partition or a stop could break."""

import itertools

import pytest
import torch

from alens.fit.optimiser import AVERAGE, STATE, AveragedAdam, learning_rate

SIZES = (5, 64, 33)


def parameters() -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size, generator=random)) for size in SIZES]


def gradient(step: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1 + step)
    return [torch.randn(size, generator=random) for size in SIZES]


def run(
    optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], start: int, stop: int
) -> None:
    for step in range(start, stop):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(0.03, step)
        for parameter, values in zip(parameters, gradient(step), strict=False):
            parameter.grad = values
        optimizer.step()


def test_its_parameters_take_the_steps_of_plain_adam() -> None:
    ours, plain = parameters(), parameters()
    run(AveragedAdam(ours, lr=0.03), ours, 0, 5)
    run(torch.optim.Adam(plain, lr=0.03, foreach=False), plain, 0, 5)
    for mine, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_the_average_weighs_an_iterate_by_its_step() -> None:
    (parameter,) = ours = parameters()[:1]
    optimizer = AveragedAdam(ours, lr=0.03)
    iterates = []
    for step in range(4):
        run(optimizer, ours, step, step + 1)
        iterates.append(parameter.detach().clone())
    expected = sum((step * iterate for step, iterate in enumerate(iterates, 1)), torch.zeros(1)) / 10
    torch.testing.assert_close(optimizer.state[parameter][AVERAGE], expected)


def test_a_flat_partition_steps_as_its_parameters_do() -> None:
    whole = parameters()
    flat = [torch.nn.Parameter(torch.cat([parameter.detach() for parameter in whole]))]
    by_parts, at_once = AveragedAdam(whole, lr=0.03), AveragedAdam(flat, lr=0.03)
    run(by_parts, whole, 0, 4)
    for step in range(4):
        at_once.param_groups[0]["lr"] = learning_rate(0.03, step)
        flat[0].grad = torch.cat(gradient(step))
        at_once.step()
    for key in STATE:
        parts = torch.cat([by_parts.state[parameter][key] for parameter in whole])
        torch.testing.assert_close(at_once.state[flat[0]][key], parts, rtol=1e-6, atol=1e-7)


def test_it_goes_on_bit_for_bit_from_its_state() -> None:
    undisturbed = parameters()
    first = AveragedAdam(undisturbed, lr=0.03)
    run(first, undisturbed, 0, 3)
    kept = [
        (parameter.detach().clone(), {key: first.state[parameter][key].clone() for key in STATE})
        for parameter in undisturbed
    ]
    run(first, undisturbed, 3, 6)
    resumed = parameters()
    second = AveragedAdam(resumed, lr=0.03)
    run(second, resumed, 0, 1)  # makes the state, as the engine does
    for parameter, (values, state) in zip(resumed, kept, strict=True):
        parameter.data.copy_(values)
        for key in STATE:
            second.state[parameter][key].copy_(state[key])
    second.count_from(3)
    run(second, resumed, 3, 6)
    for mine, expected in zip(resumed, undisturbed, strict=True):
        assert torch.equal(mine, expected)
        for key in STATE:
            assert torch.equal(second.state[mine][key], first.state[expected][key])


def test_a_step_at_rate_zero_makes_the_state_and_moves_nothing() -> None:
    (parameter,) = ours = parameters()[:1]
    optimizer = AveragedAdam(ours, lr=0.0)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(parameter, parameters()[0])
    assert torch.equal(optimizer.state[parameter][AVERAGE], parameter)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    ours = parameters()
    optimizer = AveragedAdam(ours, lr=0.03)
    ours[0].grad = gradient(0)[0]
    optimizer.step()
    assert AVERAGE in optimizer.state[ours[0]]
    assert torch.equal(ours[1], parameters()[1])
    assert not optimizer.state[ours[1]]


def test_the_average_is_nearer_the_optimum_than_the_last_iterate() -> None:
    random = torch.Generator().manual_seed(0)
    (parameter,) = ours = [torch.nn.Parameter(torch.ones(64))]
    optimizer = AveragedAdam(ours, lr=0.03)
    for step in range(1000):
        optimizer.param_groups[0]["lr"] = learning_rate(0.03, step)
        parameter.grad = parameter.detach() + torch.randn(64, generator=random)
        optimizer.step()
    assert optimizer.state[parameter][AVERAGE].norm() < 0.6 * parameter.norm()


def test_the_learning_rate_falls_without_an_end() -> None:
    assert learning_rate(0.03, 0) == 0.03
    assert learning_rate(0.03, 150) == pytest.approx(0.015)
    rates = [learning_rate(0.03, step) for step in (0, 1, 10, 1000, 10**9)]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert rates[-1] > 0
