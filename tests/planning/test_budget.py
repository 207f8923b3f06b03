"""What a probe may take, and what work takes beside other work."""

import math
import time

import pytest
import torch

from alens.planning.budget import MOST_WALL, Budget, Took, timed

CPU = torch.device("cpu")


def took(wall_s: float, cpu_s: float, own_s: float, threads: int) -> Took:
    return Took(wall_s=wall_s, cpu_s=cpu_s, own_s=own_s, threads=threads)


def work() -> float:
    return sum(math.sqrt(number) for number in range(200_000))


def test_work_uses_a_budget_up() -> None:
    budget, part = Budget(0.01), Budget(1000.0).part(0.5)
    assert 0 < budget.left <= 0.01
    assert 499 < part.left <= 500
    while budget.left:
        work()
    assert 499 < part.left < 500


def test_waiting_uses_a_budget_up_more_slowly() -> None:
    budget = Budget(0.1)
    time.sleep(0.1)
    assert budget.left == pytest.approx(0.1 - 0.1 / MOST_WALL, abs=0.02)
    time.sleep(0.1 * MOST_WALL)
    assert budget.left == 0


@pytest.mark.parametrize(
    ("time_taken", "alone_s"),
    [
        (took(3.0, 1.0, 1.0, 1), 1.0),  # other work had the CPU for two seconds
        (took(3.0, 2.0, 1.0, 2), 1.0),  # torch shares an operation evenly
        (took(3.0, 2.0, 0.1, 2), 1.0),  # the caller waits for threads that do the work
        (took(3.0, 2.0, 1.7, 2), 1.7),  # most of it cannot be shared
        (took(1.0, 2.4, 1.2, 2), 1.0),  # never more than the clock says
        (took(3.0, 1.0, 1.0, 0), 3.0),  # another device
    ],
)
def test_the_time_of_work_that_is_alone(time_taken: Took, alone_s: float) -> None:
    assert time_taken.alone_s == alone_s


def test_times_add_up() -> None:
    both = took(3.0, 2.0, 1.0, 2) + took(1.0, 1.0, 0.5, 2)
    assert both == took(4.0, 3.0, 1.5, 2)


def test_sleep_is_not_work() -> None:
    def sleep_and_work() -> float:
        time.sleep(0.2)
        return work()

    result, time_taken = timed(sleep_and_work, CPU)
    assert result == work()
    assert time_taken.wall_s > 0.2
    assert 0 < time_taken.alone_s < time_taken.wall_s - 0.19
