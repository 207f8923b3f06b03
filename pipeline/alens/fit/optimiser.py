"""Adam whose iterates are averaged: the average is good at every step, so a fit may stop at any step.

In: parameters (whole, or the flat partitions of ZeRO: all arithmetic is elementwise), gradients, a learning rate for
each step. Out: parameters to take gradients at, and in the state, as `average`, the weights to judge and to save. The
last iterate of stochastic gradients wanders about the optimum of a convex problem; the mean of the iterates does not
(Polyak and Juditsky 1992), and the last step need not be known beforehand. Step t has weight t, so that the influence
of the start fades (arXiv 1212.2002).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

AVERAGE = "average"
"""Key of the averaged weights in the state of a parameter."""

STATE = ("exp_avg", "exp_avg_sq", AVERAGE)
"""What the state of a parameter holds beside `step`: tensors of the parameter's shape, float32. With `step` and the
parameter itself they are all that is needed to go on bit for bit."""

BETAS = (0.9, 0.999)
"""Adam's decay rates, with `STEP_ROWS` rows a step."""

STEP_ROWS = 1024
"""The rows a step that rates are meant for."""

MOST_AT_ONCE = 8.0
"""Rates follow the rows of a step up to this many times `STEP_ROWS`; more was not measured."""

STEADY_STEPS = 50
"""Steps after which the learning rate is 1/sqrt(2) of its first value."""


def learning_rate(first: float, step: int) -> float:
    """The rate of step `step`, counted from 0: `first` at the start, then falling with the root of the step.

    With a constant rate the average keeps a bias that grows with the rate (docs/decisions/0017).
    """
    return first / math.sqrt(1.0 + step / STEADY_STEPS)


def batch_ratio(batch_rows: int) -> float:
    """How many steps of `STEP_ROWS` rows a step stands for, at least 1.

    The learning rate of a step grows with the root of it, decay rates are raised to its power, so that both moments remember
    as many rows (arXiv 2205.10287; docs/decisions/0071).
    """
    return min(MOST_AT_ONCE, max(1.0, batch_rows / STEP_ROWS))


class AveragedAdam(torch.optim.Adam):
    """`torch.optim.Adam`, fused, and the average of its iterates."""

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float] = BETAS) -> None:
        # Fused makes one pass over memory: 2 to 8 times as fast on a CPU as the other kinds.
        super().__init__(params, lr=lr, betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of Adam, then of the average."""
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if AVERAGE not in state:
                    state[AVERAGE] = parameter.detach().clone()
                # The weight stays a tensor: to make a number of it would wait for the GPU, if `step` is there.
                state[AVERAGE].lerp_(parameter, 2.0 / (state["step"] + 1.0))
        return loss

    def count_from(self, steps_taken: int) -> None:
        """Continue after this number of steps, once the rest of the state has been restored."""
        for state in self.state.values():
            state["step"].fill_(float(steps_taken))
