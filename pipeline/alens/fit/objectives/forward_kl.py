"""Forward KL, KL(model || lens): the objective of the paper (arXiv 2310.16270).

In: whitened z, the map of every head, a teacher. Out: the loss of every head. Forward KL is the cross-entropy against the
teacher minus the teacher's entropy, and has the same gradient.
Shapes: H heads, N rows, E d_head, V vocabulary.
"""

import torch

from alens.fit.objectives.cross_entropy import cross_entropy
from alens.fit.objectives.objective import Objective
from alens.lens.designs.design import Readout
from alens.rows.teacher import Teacher


class ForwardKL(Objective):
    """KL(model || softmax(reading))."""

    is_forward_kl = True

    def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
        return forward_kl(readout.features_UNF, readout.weight_UFV, readout.bias_UV, teacher)


def forward_kl(
    z_HNE: torch.Tensor, weight_HEV: torch.Tensor, bias_HV: torch.Tensor, teacher: Teacher
) -> torch.Tensor:
    """(H,) float32: the mean over rows of KL(teacher || softmax(z weight + bias)), in nats.

    Differentiable once. With a compressed teacher the value is an unbiased estimate and may be slightly
    negative for a perfect lens.
    """
    return cross_entropy(z_HNE, weight_HEV, bias_HV, teacher) - teacher.entropies.mean()
