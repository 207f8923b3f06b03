"""The reference for every form of the core operation: rows x vocabulary at once, in float64, by autograd."""

import torch


def cross_entropy_and_gradients(
    features_HNF: torch.Tensor,
    weight_HFV: torch.Tensor,
    bias_HV: torch.Tensor,
    ids_NJ: torch.Tensor,
    weights_NJ: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss_H, grad_weight_HFV, grad_bias_HV), all float64."""
    weight, bias = (part.detach().double().requires_grad_() for part in (weight_HFV, bias_HV))
    logits_HNV = features_HNF.double() @ weight + bias[:, None]
    teacher_NV = logits_HNV.new_zeros(logits_HNV.shape[1:]).scatter_add(1, ids_NJ, weights_NJ.double())
    loss_H = (logits_HNV.logsumexp(-1) - (teacher_NV * logits_HNV).sum(-1)).mean(-1)
    return loss_H.detach(), *torch.autograd.grad(loss_H.sum(), (weight, bias))
