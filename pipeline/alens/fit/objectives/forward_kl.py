"""Forward KL, KL(model || lens): the objective of the paper (arXiv 2310.16270).

In: whitened z, the map of every head, a teacher. Out: the loss of every head. Forward KL is the cross-entropy against the
teacher minus the teacher's entropy, and has the same gradient.
Shapes: H heads, U heads with a loss, N rows, E d_head, V vocabulary.
"""

from collections.abc import Sequence

import torch

from alens.fit.objectives.cross_entropy import cross_entropy
from alens.fit.objectives.objective import Objective
from alens.lens.designs.readout import Readout
from alens.rows.teacher import Teacher


class ForwardKL(Objective):
    """KL(model || softmax(reading))."""

    is_forward_kl = True

    def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
        weight_HFV, bias_HV, heads = readout.uncopied
        return forward_kl(readout.features_UNF, weight_HFV, bias_HV, teacher, heads)


def forward_kl(
    z_UNE: torch.Tensor,
    weight_HEV: torch.Tensor,
    bias_HV: torch.Tensor,
    teacher: Teacher,
    heads: Sequence[int] | None = None,
) -> torch.Tensor:
    """(U,) float32: the mean over rows of KL(teacher || softmax(z weight + bias)), in nats.

    `heads` are the U heads that z belongs to, None for all. Differentiable once. With a compressed teacher the value is an
    unbiased estimate and may be slightly negative for a perfect lens.
    """
    return cross_entropy(z_UNE, weight_HEV, bias_HV, teacher, heads) - teacher.entropies.mean()
