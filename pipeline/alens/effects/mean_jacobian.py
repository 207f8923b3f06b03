"""The mean Jacobian of heads over the positions of some sequences: how the residual stream before the last norm moves with z.

In: a forward pass that keeps what gradients need. Out: for each layer (E, H, D), the Jacobian of the stream at a position by z
of each head there, or of the sum of the stream over that position and all later ones, each in the mean over the positions
after the first.

A probe has one axis of the stream at each position: the gradient by z is a row of the Jacobian, added up over the later
positions that have the axis too. Over later positions, all positions of a sequence have the same axis. At the same position
they have axes of their own with random signs, so that what comes from later positions has mean zero (Bekas, Kokiopoulou and
Saad, "An estimator for the diagonal of a matrix", 2007). Axes are dealt out so that each comes equally often; with as many
passes as axes every sequence has all of them, as in "Verbalizable Representations Form a Global Workspace in Language Models"
(Gurnee et al., 2026).
Shapes: B sequences, T tokens, S slots that have an axis in a pass, P passes, H heads, E d_head, D d_model.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from alens.model.gradient_pass import GradientPass
from alens.store.effect_files import FIRST_POSITION
from alens.store.paths import SAME_POSITION, Reach

Each = Callable[[], None]
"""Called before each backward pass; may raise to end the work."""


def passes_needed(reach: Reach, sequences: int, length: int, d_model: int, probes: int) -> int:
    """How many passes give every axis one slot at least; not fewer than `probes`."""
    slots = sequences * (length - FIRST_POSITION if reach == SAME_POSITION else 1)
    return max(probes, -(-d_model // slots))


def mean_jacobian(
    clean: GradientPass,
    heads: Mapping[int, Sequence[int]],
    reach: Reach,
    passes: int,
    draws: np.random.Generator,
    each: Each,
) -> dict[int, torch.Tensor]:
    """By layer (E, H, D) float32, of these heads."""
    batch, length, width = clean.stream_BTD.shape
    positions = length - FIRST_POSITION
    alone = reach == SAME_POSITION
    axis_SP = _dealt(batch * (positions if alone else 1), passes, width, draws)
    sums_DHE = {
        layer: torch.zeros(width, len(numbers), clean.d_head, device=clean.device)
        for layer, numbers in heads.items()
    }
    for at in range(passes):
        each()
        axis_BT = axis_SP[:, at].view(batch, -1).expand(batch, positions)
        sign_BT = torch.from_numpy(
            draws.integers(0, 2, (batch, positions)) * 2 - 1 if alone else np.ones((batch, positions))
        )
        axis_BT, sign_BT = axis_BT.to(clean.device), sign_BT.to(clean.device, torch.float32)
        probe_BTD = torch.zeros(batch, length, width, device=clean.device)
        probe_BTD[:, FIRST_POSITION:].scatter_(2, axis_BT[..., None], sign_BT[..., None])
        for layer, part_BTHE in clean.gradients(probe_BTD).items():
            rows_BTHE = part_BTHE[:, FIRST_POSITION:, list(heads[layer])].float() * sign_BT[..., None, None]
            sums_DHE[layer].index_add_(0, axis_BT.flatten(), rows_BTHE.flatten(0, 1))
    counts_D = torch.bincount(axis_SP.flatten(), minlength=width) * (1 if alone else positions)
    counts_D11 = counts_D.to(clean.device)[:, None, None]
    return {layer: (sum_DHE / counts_D11).permute(2, 1, 0) for layer, sum_DHE in sums_DHE.items()}


def _dealt(slots: int, passes: int, axes: int, draws: np.random.Generator) -> torch.Tensor:
    """(S, P) axes in random orders, each as often as every other but for one time."""
    count = slots * passes
    rounds: list[npt.NDArray[np.int64]] = [draws.permutation(axes) for _ in range(-(-count // axes))]
    return torch.from_numpy(np.concatenate(rounds)[:count]).view(slots, passes)
