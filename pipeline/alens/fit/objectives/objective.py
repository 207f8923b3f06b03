"""What an objective is: which rows a lens is fitted on, what it is fitted to, and the loss.

In: rows of a cache and a `Readout`. Out: a mean loss for each head. An objective of one's own is a subclass of
`Objective`; docs/plug-ins.md shows one.
Shapes: N rows, U losses (one a head, or one a layer).
"""

from dataclasses import dataclass

import torch

from alens.lens.designs.design import Readout
from alens.rows.columns import Columns
from alens.rows.teacher import Teacher
from alens.store.cache_reader import Cache


@dataclass(frozen=True, kw_only=True)
class TargetRows:
    """The rows of a step, as far as a target may depend on them."""

    cache: Cache
    """Its tokens, and what it knows of the model."""
    columns: Columns
    """The arrays that the objective asked for (and others), numpy, by name."""
    teacher: Teacher
    """The model's final distributions, on the device."""
    device: torch.device


class Objective:
    """Subclasses give `loss`, and where it is not the model's distribution that is fitted to, `target`."""

    teachers: tuple[str, ...] = ("compressed", "exact")
    """Kinds of teacher it can do with; the first is the default."""

    columns: tuple[str, ...] = ()
    """Arrays of the cache that `target` needs, such as `rows/sequence`."""

    is_forward_kl: bool = False
    """Whether the loss is forward KL to the target: what held-out figures call `kl`."""

    last_position: bool = False
    """Whether only the last position of each sequence counts."""

    def target(self, rows: TargetRows) -> Teacher:
        """What the rows are fitted to; runs in a thread beside the steps. The model's own distribution."""
        return rows.teacher

    def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
        """(U,) float32: the mean loss over the rows, nats, differentiable once in what `readout` is made of.

        Never hold rows x vocabulary beyond a block: make gradients in forward, or checkpoint blocks.
        """
        raise NotImplementedError
