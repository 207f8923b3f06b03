"""What a fit says of its steps: on a GPU it looks at a loss seldom, because a look waits."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alens.fit import step_notes
from alens.fit.step_notes import StepNotes


class Loss:
    """Losses on a device, whose looks are counted."""

    def __init__(self, device: str, value: float) -> None:
        self.device, self.values, self.looks = torch.device(device), torch.tensor([[value, 0.0]]), 0

    def any(self) -> torch.Tensor:
        self.looks += 1
        return self.values.any()

    def __ne__(self, other: Any) -> Any:
        return self.values != other

    def __getitem__(self, at: torch.Tensor) -> torch.Tensor:
        return self.values[at]


@pytest.mark.parametrize(("device", "looks"), [("cpu", 5), ("cuda", 3)])
def test_losses_on_a_gpu_are_looked_at_once_in_two_seconds(
    monkeypatch: pytest.MonkeyPatch, device: str, looks: int
) -> None:
    clock = iter([10.0, 11.0, 12.5, 13.0, 14.5])
    monkeypatch.setattr(step_notes.time, "monotonic", lambda: next(clock))
    trainer: Any = SimpleNamespace(
        step_number=4,
        settings=SimpleNamespace(batch_rows=8),
        curves=SimpleNamespace(ended_steps=lambda _: []),
    )
    notes, losses, said = StepNotes(trainer), [Loss(device, value) for value in range(1, 6)], []
    for loss in losses:
        trainer.step_number += 1
        said.append(notes.note(loss, 2.0))  # type: ignore[arg-type]  # a stand-in
    assert sum(loss.looks for loss in losses) == looks
    assert said[0] == "training loss mean 1.000, worst 1.000, 4 rows/s"
    assert said[-1] == "training loss mean 5.000, worst 5.000, 20 rows/s"
