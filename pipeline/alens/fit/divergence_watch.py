"""Training losses that leave for good: noticed after some steps, long before the first held-out loss or the last step.

In: the losses of every step, on each process. Out: after each window of steps, the losses that have diverged: not
finite, or far above what the mean output has and not on its way back. All processes find the same.
Shapes: L layers, U losses of a layer.
"""

from collections.abc import Callable, Mapping

import torch

from alens.errors import RunError

WINDOW = 8
"""Steps over which losses are averaged: one batch may be odd. A rate that is too high shows in two of them."""

FACTOR, NATS = 2.0, 1.0
"""A loss has diverged at so many times that of the mean output and so many nats more, if it still rises."""

HOPELESS = 3.0
"""And at so many times as much, in a second window, even if it comes down: it would take the whole fit."""


class DivergedError(RunError):
    """The learning rate of a fit is too high."""


Sum = Callable[[torch.Tensor], torch.Tensor]
"""Over all processes, in place."""


class DivergenceWatch:
    """The windows of a fit. State is float64 on the device, the same on every process after `whole`."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.reference_LU: torch.Tensor | None = None
        """The higher of the mean output's loss and the lens's own at the first step, there."""
        self.window_LU: torch.Tensor | None = None
        """The sum of this process's losses since the last window was over."""
        self.before_LU: torch.Tensor | None = None
        """The mean over the window before, over all processes."""

    def add(
        self, loss_LU: torch.Tensor, mean_output: Callable[[], torch.Tensor], over_processes: Sum
    ) -> None:
        """The losses of a step. `mean_output` gives the mean output's loss on its rows: asked for once a fit."""
        loss_LU = loss_LU.double()
        if self.reference_LU is None:
            reference_LU = torch.maximum(loss_LU, mean_output().double())
            self.reference_LU = over_processes(reference_LU.clone()) / self.world_size
        self.window_LU = loss_LU.clone() if self.window_LU is None else self.window_LU + loss_LU

    def over(self, over_processes: Sum) -> torch.Tensor:
        """Ends a window: (L, U) bool, the losses that have diverged in it. Collective."""
        assert self.window_LU is not None and self.reference_LU is not None, "a window has steps"
        mean_LU = over_processes(self.window_LU) / (self.world_size * WINDOW)
        gone_LU = ~torch.isfinite(mean_LU)
        if self.before_LU is not None:
            limit_LU = FACTOR * self.reference_LU + NATS
            gone_LU |= (mean_LU > limit_LU) & (mean_LU > self.before_LU) | (mean_LU > HOPELESS * limit_LU)
        self.before_LU, self.window_LU = mean_LU, None
        return gone_LU

    def state(self, over_processes: Sum) -> dict[str, torch.Tensor]:
        """What a checkpoint holds, by name. Collective."""
        parts = {"reference": self.reference_LU, "before": self.before_LU}
        if self.window_LU is not None:
            parts["window"] = over_processes(self.window_LU.clone()) / self.world_size
        return {name: value.cpu() for name, value in parts.items() if value is not None}

    def restore(self, state: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Put `state()` back."""
        parts = {name: value.to(device) for name, value in state.items()}
        self.reference_LU, self.before_LU = parts.get("reference"), parts.get("before")
        self.window_LU = parts.get("window")
