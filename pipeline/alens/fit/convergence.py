"""Provisional."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Held-out losses of an evaluation."""

    step: int
    losses: dict[int, list[float]]


def evaluation_steps(steps: int, steps_per_epoch: int) -> frozenset[int]:
    """After which steps held-out losses are taken."""
    return frozenset({round(steps * part / 5) for part in range(1, 6)} - {0})


def converged(history: Sequence[tuple[int, float]], tolerance: float) -> bool:
    """Whether a lens has converged."""
    return False
