"""What an objective is: which rows a lens is fitted on, what it is fitted to, and the loss.

In: rows of a cache and a `Readout`. Out: a mean loss for each head. To write your own objective, subclass `Objective`;
docs/plug-ins.md shows one.
Shapes: N rows, U losses (one for each head, or one for the layer).
"""

from dataclasses import dataclass

import torch

from alens.lens.designs.readout import Readout
from alens.rows.columns import Columns
from alens.rows.teacher import Teacher
from alens.store.cache_reader import Cache


@dataclass(frozen=True, kw_only=True)
class TargetRows:
    """The rows of a step: all that a target may depend on."""

    cache: Cache
    """The cache that the rows come from, with its tokens and what it knows about the model."""
    columns: Columns
    """The arrays that the objective asked for (and others), numpy, by name."""
    teacher: Teacher
    """The model's final distributions, on the device."""
    device: torch.device


class Objective:
    """Subclasses give `loss`, and `target` where lenses are not fitted to the model's distribution."""

    teachers: tuple[str, ...] = ("compressed", "exact")
    """The kinds of teacher that it can use; the first is the default."""

    columns: tuple[str, ...] = ()
    """Arrays of the cache that `target` needs, such as `rows/sequence`."""

    is_forward_kl: bool = False
    """Whether the loss is forward KL to the target: what held-out figures call `kl`."""

    last_position: bool = False
    """Whether only the last position of each sequence counts."""

    def target(self, rows: TargetRows) -> Teacher:
        """What the rows are fitted to: here the model's own distribution. Runs in a thread beside the steps."""
        return rows.teacher

    def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
        """(U,) float32: the mean loss over the rows in nats, differentiable once in the tensors of `readout`.

        Never hold more than a block of rows x vocabulary: make gradients in forward, or checkpoint blocks.
        """
        raise NotImplementedError
