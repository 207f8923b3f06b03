"""Cross-entropy of many heads against one teacher, differentiable: what forward KL and other objectives share.

In: features, an affine map for each head, a teacher. Out: the loss of every head, and gradients of the tensors that need
them. Gradients are made in forward and handed over in backward, so that ZeRO-3 may free the weights in between. Rows x
vocabulary is never held.
Shapes: H heads, U heads with a loss, N rows, F features, V vocabulary.
"""

import functools
import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from alens.fit.objectives.cross_entropy_tiles import Gradients, Wanted, loss_and_gradients
from alens.lens.designs.readout import unit_index
from alens.rows.teacher import CompressedTeacher, Teacher

log = logging.getLogger("alens")

Kernel = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""(features, weight, bias, ids, weights, kept=..., heads=...) -> losses, gradients of weight and of bias."""


def cross_entropy(
    features_UNF: torch.Tensor,
    weight_HFV: torch.Tensor,
    bias_HV: torch.Tensor,
    teacher: Teacher,
    heads: Sequence[int] | None = None,
) -> torch.Tensor:
    """(U,) float32: the mean over rows of -sum(teacher * log softmax(features weight + bias)), in nats.

    `heads` are the U heads that the features belong to, each once, None for all. Weights of heads are not copied; those of
    the others get a gradient of 0.

    Differentiable once in features, weight and bias. Sums are float32, whatever the dtypes; gradients have
    the dtype of what they belong to. Views that heads share (`expand`) are not copied.
    """
    if not torch.is_grad_enabled():  # `apply` does not see this
        return _compute(features_UNF, weight_HFV, bias_HV, teacher, Wanted(), heads)[0]
    loss_U: torch.Tensor = _CrossEntropy.apply(features_UNF, weight_HFV, bias_HV, teacher, heads)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return loss_U


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features_UNF: torch.Tensor,
        weight_HFV: torch.Tensor,
        bias_HV: torch.Tensor,
        teacher: Teacher,
        heads: Sequence[int] | None,
    ) -> torch.Tensor:
        wanted = Wanted(*ctx.needs_input_grad[:3])
        ctx.by_kernel = _kernel_for(features_UNF, teacher, wanted) is not None
        ctx.heads = heads
        loss_U, ctx.gradients = _compute(features_UNF, weight_HFV, bias_HV, teacher, wanted, heads)
        return loss_U

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("cross_entropy: backward was called a second time; call forward again")
        # Handed over, not kept: a tensor that nothing else refers to becomes `.grad` without a copy.
        gradients, ctx.gradients = ctx.gradients, None
        (scale_U,) = incoming
        for gradient in gradients:
            if gradient is not None:
                _scale(gradient, _of_all(scale_U, ctx.heads, len(gradient)), by_kernel=ctx.by_kernel)
        return *gradients, None, None


def _of_all(scale_U: torch.Tensor, heads: Sequence[int] | None, num_heads: int) -> torch.Tensor:
    """The scales of all heads: those without a loss have a gradient of 0, and any scale will do."""
    if len(scale_U) == num_heads or heads is None:
        return scale_U
    return scale_U.new_ones(num_heads).index_copy_(0, unit_index(tuple(heads), scale_U.device), scale_U)


def _scale(gradient_HX: torch.Tensor, scale_H: torch.Tensor, *, by_kernel: bool) -> None:
    """Multiply the gradients of each head in place; by 1, as the sum of all losses asks for, nothing is touched."""
    if scale_H.is_cuda and by_kernel:
        from alens.fit.objectives.cross_entropy_triton import scale

        scale(gradient_HX, scale_H)
    elif scale_H.is_cuda or not bool((scale_H == 1).all()):  # a look would wait for CUDA
        gradient_HX.mul_(scale_H.view(-1, *[1] * (gradient_HX.ndim - 1)))


def _compute(
    features_UNF: torch.Tensor,
    weight_HFV: torch.Tensor,
    bias_HV: torch.Tensor,
    teacher: Teacher,
    wanted: Wanted,
    heads: Sequence[int] | None = None,
) -> tuple[torch.Tensor, Gradients]:
    """Loss and gradients by the kernel where there is one, else tile by tile."""
    kernel = _kernel_for(features_UNF, teacher, wanted)
    if kernel is None:
        loss_U, made = loss_and_gradients(features_UNF, weight_HFV, bias_HV, teacher, wanted, heads)
    else:
        arguments = features_UNF, weight_HFV, bias_HV, teacher.ids_NJ, teacher.weights_NJ  # type: ignore[attr-defined]  # a compressed teacher, else `kernel` is None
        loss_U, weight_gradient, bias_gradient = kernel(*arguments, kept=teacher.kept, heads=heads)  # type: ignore[attr-defined]  # as above
        made = (None, weight_gradient, bias_gradient)
    gradients = tuple(
        gradient.to(tensor.dtype) if asked and gradient is not None else None
        for gradient, tensor, asked in zip(made, (features_UNF, weight_HFV, bias_HV), wanted, strict=True)
    )
    return loss_U, gradients  # type: ignore[return-value]  # a tuple of three, from three


def _kernel_for(features_UNF: torch.Tensor, teacher: Teacher, wanted: Wanted) -> Kernel | None:
    """The kernel makes the gradients of compressed cross-entropy with respect to weight and bias."""
    if not features_UNF.is_cuda or not isinstance(teacher, CompressedTeacher):
        return None
    if wanted.features or not any(wanted):
        return None
    return _triton_kernel(features_UNF.shape[-1], features_UNF.device)


@functools.cache
def _triton_kernel(num_features: int, device: torch.device) -> Kernel | None:
    """The kernel, if it can be used by every process of the fit. Collective the first time."""
    module: Any = None
    reason: str | None
    try:
        module = importlib.import_module("alens.fit.objectives.cross_entropy_triton")
    except ImportError as error:
        reason = str(error)
    else:
        reason = module.available(num_features) or module.trial(num_features, device)
    if (reason := _agreed(reason, device)) is not None:
        return _without_kernel(reason)
    kernel: Kernel = module.cross_entropy_and_gradients
    return kernel


def _agreed(reason: str | None, device: torch.device) -> str | None:
    """`reason`, or that another process has one: the sums of a step are to be of one kind."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if together and torch.distributed.get_world_size() > 1:
        lacking = torch.tensor([float(reason is not None)], device=device)
        torch.distributed.all_reduce(lacking)
        if reason is None and lacking.item():
            return "another process of this fit cannot use it"
    return reason


@functools.cache
def _without_kernel(reason: str) -> None:
    """Log once why there is no kernel."""
    log.warning("no Triton kernel for the loss (%s): slower PyTorch operations take its place", reason)
