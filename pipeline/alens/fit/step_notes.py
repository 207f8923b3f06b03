"""What a fit says of its last step: losses, pace, and how many lenses have ended.

In: the losses of a step, (L, U), and how long the steps took. Out: one line. On a GPU it is renewed seldom, because a look
at a loss waits for all steps that were asked for.
"""

import time

import torch

from alens.fit.convergence import ENDINGS
from alens.fit.trainer import Trainer

NOTE_S = 2.0
"""Seconds for which a line holds on a GPU."""


class StepNotes:
    """The lines of one run."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._start = trainer, trainer.step_number
        self._said, self._said_at = "", -NOTE_S

    def note(self, loss_LU: torch.Tensor, seconds: float) -> str:
        """The line after a step; `seconds` is the time in all steps of this run."""
        now = time.monotonic()
        if loss_LU.device.type == "cpu" or now - self._said_at >= NOTE_S:
            self._said, self._said_at = self._looked_up(loss_LU, seconds), now
        return self._said

    def _looked_up(self, loss_LU: torch.Tensor, seconds: float) -> str:
        trainer = self._trainer
        rows = (trainer.step_number - self._start) * trainer.settings.batch_rows
        # 0 where a lens is trained no further
        trained = loss_LU[loss_LU != 0] if bool(loss_LU.any()) else loss_LU
        note = f"training loss mean {trained.mean():.3f}, worst {trained.max():.3f}, {rows / max(seconds, 1e-9):,.0f} rows/s"
        for why in ENDINGS:
            if ended := trainer.curves.ended_steps(why):
                note += f", {len(ended)} of {len(trainer.plan.lenses)} {why}"
        return note
