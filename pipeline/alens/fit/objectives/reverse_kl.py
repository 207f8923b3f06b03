"""`reverse-kl`: KL(lens || model), equation 1 of "Attention Lens" (arXiv 2310.16270); needs the exact teacher.

It needs every probability of the model where the lens has mass, so top k and samples are not enough. It is not convex; a
fit starts at the mean output, as all do. Loss and gradients are made together, a block of rows and one head at a time.
Shapes: U losses, N rows, F features, V vocabulary, B rows of a block.
"""

from typing import Any

import torch

from alens.errors import RequestError
from alens.fit.objectives.objective import Objective
from alens.job.interruption import leave_out
from alens.lens.designs.readout import Readout
from alens.machine.blocks import row_blocks
from alens.machine.products import fast_float32
from alens.rows.teacher import ExactTeacher, Teacher


class ReverseKL(Objective):
    """KL(softmax(reading) || model)."""

    teachers = ("exact",)

    def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
        if not isinstance(teacher, ExactTeacher):
            raise RequestError("reverse-kl needs every probability of the model: fit with --teacher exact")
        loss_U: torch.Tensor = _ReverseKL.apply(  # type: ignore[no-untyped-call]  # torch leaves apply untyped
            readout.features_UNF, readout.weight_UFV, readout.bias_UV, teacher
        )
        return loss_U


class _ReverseKL(torch.autograd.Function):
    @staticmethod
    @fast_float32()
    def forward(
        ctx: Any,
        features_UNF: torch.Tensor,
        weight_UFV: torch.Tensor,
        bias_UV: torch.Tensor,
        teacher: ExactTeacher,
    ) -> torch.Tensor:
        U, N, _ = features_UNF.shape
        tensors = (features_UNF, weight_UFV, bias_UV)
        grads = [
            torch.zeros(t.shape, device=t.device) if need else None
            for t, need in zip(tensors, ctx.needs_input_grad[:3], strict=True)
        ]
        loss_U = torch.zeros(U, device=features_UNF.device)
        for rows in row_blocks(N, features_UNF.device):
            model_BV = teacher.log_probs(rows)
            for unit in range(U):
                if leave_out():
                    break
                block_BF, weight_FV = features_UNF[unit, rows].float(), weight_UFV[unit].float()
                log_probs_BV = torch.addmm(bias_UV[unit].float(), block_BF, weight_FV).log_softmax(-1)
                probs_BV = log_probs_BV.exp()
                ratio_BV = log_probs_BV.sub_(model_BV)
                kl_B = torch.linalg.vecdot(probs_BV, ratio_BV)
                loss_U[unit] += kl_B.sum()
                # d KL / d logit = p (log p - log q - KL)
                slope_BV = ratio_BV.sub_(kl_B[:, None]).mul_(probs_BV)
                if grads[0] is not None:
                    grads[0][unit, rows] = slope_BV @ weight_FV.T
                if grads[1] is not None:
                    grads[1][unit].addmm_(block_BF.T, slope_BV)
                if grads[2] is not None:
                    grads[2][unit] += slope_BV.sum(0)
        ctx.save_for_backward(
            *(None if g is None else g.div_(N).to(t.dtype) for g, t in zip(grads, tensors, strict=True))
        )
        return loss_U / N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale_U = grads[0]
        parts = [
            None if part is None else part * scale_U.to(part.dtype).view(-1, *[1] * (part.dim() - 1))
            for part in ctx.saved_tensors
        ]
        return (*parts, None)
