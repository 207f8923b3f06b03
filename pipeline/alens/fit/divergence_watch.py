"""Training losses that rise and do not come back, noticed long before the first held-out loss or the last step.

In: the losses of every step, on each process. Out: after each window of steps, the losses that have diverged: they are
not finite, or far above that of the mean output and not falling. The result is the same on all processes.
Shapes: L layers, U losses of a layer.
"""

from collections.abc import Callable, Mapping

import torch

from alens.errors import RunError

WINDOW = 8
"""Steps over which losses are averaged, because one batch may be odd. A rate that is too high shows in two windows."""

FACTOR, NATS = 2.0, 1.0
"""A loss has diverged above FACTOR times that of the mean output plus NATS nats, if it still rises."""

HOPELESS = 3.0
"""Above this many times that limit, in a second window, it has diverged even if it falls: that would take the whole
fit."""


class DivergedError(RunError):
    """The learning rate of a fit is too high."""


Sum = Callable[[torch.Tensor], torch.Tensor]
"""Sums a tensor over all processes, in place."""


class DivergenceWatch:
    """The windows of a fit. The state is float64, on the device."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.reference_LU: torch.Tensor | None = None
        """At the first step, the higher of the losses of the mean output and of the lens."""
        self.window_LU: torch.Tensor | None = None
        """The sum of this process's losses since the last window ended."""
        self.before_LU: torch.Tensor | None = None
        """The mean over the window before, over all processes."""

    def add(
        self, loss_LU: torch.Tensor, mean_output: Callable[[], torch.Tensor], over_processes: Sum
    ) -> None:
        """Add the losses of a step. `mean_output` gives the mean output's loss on its rows, and is called once a fit."""
        loss_LU = loss_LU.double()
        if self.reference_LU is None:
            reference_LU = torch.maximum(loss_LU, mean_output().double())
            self.reference_LU = over_processes(reference_LU.clone()) / self.world_size
        self.window_LU = loss_LU.clone() if self.window_LU is None else self.window_LU + loss_LU

    def over(self, over_processes: Sum) -> torch.Tensor:
        """End a window; gives the losses that have diverged in it, (L, U) bool. Collective."""
        assert self.window_LU is not None and self.reference_LU is not None, "a window has steps"
        mean_LU = over_processes(self.window_LU) / (self.world_size * WINDOW)
        diverged_LU = ~torch.isfinite(mean_LU)
        if self.before_LU is not None:
            limit_LU = FACTOR * self.reference_LU + NATS
            diverged_LU |= (mean_LU > limit_LU) & (mean_LU > self.before_LU) | (mean_LU > HOPELESS * limit_LU)
        self.before_LU, self.window_LU = mean_LU, None
        return diverged_LU

    def state(self, over_processes: Sum) -> dict[str, torch.Tensor]:
        """The tensors that a checkpoint holds, by name. Collective."""
        parts = {"reference": self.reference_LU, "before": self.before_LU}
        if self.window_LU is not None:
            parts["window"] = over_processes(self.window_LU.clone()) / self.world_size
        return {name: value.cpu() for name, value in parts.items() if value is not None}

    def restore(self, state: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Put `state()` back."""
        parts = {name: value.to(device) for name, value in state.items()}
        self.reference_LU, self.before_LU = parts.get("reference"), parts.get("before")
        self.window_LU = parts.get("window")
