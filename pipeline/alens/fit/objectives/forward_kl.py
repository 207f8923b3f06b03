"""Forward KL, KL(model || lens): loss and weight gradient together, a block of rows at a time.

The paper (arXiv 2310.16270) fits by KL to the model's final distribution. Forward KL is cross-entropy
against the teacher less the teacher's entropy, so it needs the lens's logsumexp, its logits where the
teacher has weight, and no gradient for z. Logits of one block of rows and one head are held, never rows x
vocabulary: the gradient is made in forward and handed over in backward.
Shapes: H heads, N rows, E d_head, V vocabulary, B rows of a block.
"""

from typing import Any

import torch

from alens.teacher import Teacher

BLOCK_BYTES = 16 * 2**20
"""Of logits held at once: about what the caches of a few cores hold."""


def forward_kl(
    z_HNE: torch.Tensor, weight_HEV: torch.Tensor, bias_HV: torch.Tensor, teacher: Teacher
) -> torch.Tensor:
    """(H,) float32: the mean over rows of KL(teacher || softmax(z weight + bias)), in nats.

    Differentiable once in `weight_HEV` and `bias_HV`. With a compressed teacher the value is an unbiased
    estimate and may be slightly negative for a perfect lens.
    """
    loss_H: torch.Tensor = _CrossEntropy.apply(z_HNE, weight_HEV, bias_HV, teacher)  # type: ignore[no-untyped-call]
    return loss_H - teacher.entropies.mean()


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_HNE: torch.Tensor, weight_HEV: torch.Tensor, bias_HV: torch.Tensor, teacher: Teacher
    ) -> torch.Tensor:
        H, N, _ = z_HNE.shape
        weight_grad_HEV, bias_grad_HV = torch.zeros_like(weight_HEV), torch.zeros_like(bias_HV)
        loss_H = z_HNE.new_zeros(H)
        size = max(1, BLOCK_BYTES // (4 * weight_HEV.shape[-1]))
        for start in range(0, N, size):
            rows = slice(start, min(N, start + size))
            block = teacher.block(rows)
            for head in range(H):
                z_BE = z_HNE[head, rows]
                logits_BV = torch.addmm(bias_HV[head], z_BE, weight_HEV[head])
                expected_B = block.expect(logits_BV)
                largest_B1 = logits_BV.amax(dim=-1, keepdim=True)
                probs_BV = logits_BV.sub_(largest_B1).exp_()
                sum_B1 = probs_BV.sum(dim=-1, keepdim=True)
                loss_H[head] += (largest_B1 + sum_B1.log()).sum() - expected_B.sum()
                block.subtract_from(probs_BV.div_(sum_B1))
                weight_grad_HEV[head].addmm_(z_BE.T, probs_BV)
                bias_grad_HV[head] += probs_BV.sum(dim=0)
        ctx.save_for_backward(weight_grad_HEV.div_(N), bias_grad_HV.div_(N))
        return loss_H / N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor, None]:
        weight_grad_HEV, bias_grad_HV = ctx.saved_tensors
        return None, weight_grad_HEV * grads[0][:, None, None], bias_grad_HV * grads[0][:, None], None
