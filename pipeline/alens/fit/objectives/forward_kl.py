"""Forward KL, KL(model || lens): loss and weight gradient together, a block of rows at a time.

The paper (arXiv 2310.16270) fits by KL to the model's final distribution. Forward KL is cross-entropy
against the teacher less the teacher's entropy, so it needs the lens's logsumexp, its logits where the
teacher has weight, and no gradient for z. Logits of one block of rows and one head are held, never rows x
vocabulary: the gradient is made in forward and handed over in backward.
Shapes: H heads, N rows, E d_head, V vocabulary, B rows of a block,
F = E + 1.
"""

from typing import Any

import torch

from alens.blocks import row_blocks
from alens.fit.objectives.objective import Objective
from alens.lens.designs.design import Readout
from alens.teacher import Teacher


def forward_kl(
    z_HNE: torch.Tensor, weight_HEV: torch.Tensor, bias_HV: torch.Tensor, teacher: Teacher
) -> torch.Tensor:
    """(H,) float32: the mean over rows of KL(teacher || softmax(z weight + bias)), in nats.

    Differentiable once in `weight_HEV` and `bias_HV`. With a compressed teacher the value is an unbiased
    estimate and may be slightly negative for a perfect lens.
    """
    loss_H: torch.Tensor = _CrossEntropy.apply(z_HNE, weight_HEV, bias_HV, teacher)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return loss_H - teacher.entropies.mean()


class ForwardKL(Objective):
    """KL(model || softmax(reading))."""

    def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
        return forward_kl(readout.features_UNF, readout.weight_UFV, readout.bias_UV, teacher)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_HNE: torch.Tensor, weight_HEV: torch.Tensor, bias_HV: torch.Tensor, teacher: Teacher
    ) -> torch.Tensor:
        H, N, E = z_HNE.shape
        V = weight_HEV.shape[-1]
        # A column of ones beside z: the bias gradient falls out of the product for the weight gradient.
        extended_HNF = torch.cat([z_HNE, z_HNE.new_ones(H, N, 1)], dim=-1)
        grads_HFV = z_HNE.new_zeros(H, E + 1, V)
        loss_H = z_HNE.new_zeros(H)
        for rows in row_blocks(N, z_HNE.device):
            block = teacher.block(rows)
            for head in range(H):
                logits_BV = torch.addmm(bias_HV[head], z_HNE[head, rows], weight_HEV[head])
                probs_BV = logits_BV.softmax(dim=-1)
                # The largest probability is at least 1/V, so its logarithm loses nothing.
                logsumexp_B = logits_BV.amax(dim=-1) - probs_BV.amax(dim=-1).log()
                loss_H[head] += (logsumexp_B - block.expect(logits_BV)).sum()
                block.subtract_from(probs_BV)
                grads_HFV[head].addmm_(extended_HNF[head, rows].T, probs_BV)
        ctx.save_for_backward(grads_HFV.div_(N))
        return loss_H / N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor, None]:
        (grads_HFV,) = ctx.saved_tensors
        scaled_HFV = grads_HFV * grads[0][:, None, None]
        return None, scaled_HFV[:, :-1], scaled_HFV[:, -1], None
