"""Runs the model with directions of one head's z ablated, many ablations in one pass.

In: the model, one sequence of tokens, a head, ablations as `subspaces.removals` makes them, and what takes the
place of what is removed. Out: the final residuals with each ablation, and KL(model || ablated model). A pass
runs the layers below once: the hook on z makes one sequence into as many as there are ablations, and what did
not change is broadcast.
Shapes: T tokens, P positions that are ablated, H heads, E d_head, D d_model, V vocabulary, A ablations.
"""

import torch

from alens.errors import RequestError
from alens.machine.blocks import logit_blocks, slices
from alens.machine.products import fast_float32
from alens.model.edits import Edit, run_edited
from alens.model.models import LoadedModel
from alens.statistics.divergences import kl_of_change

CPU_TOKENS, CUDA_TOKENS = 8192, 65536
"""Tokens of a pass, over all its ablations: 100 MB of float32 for the widest layer of GPT-2 small. CUDA: not
measured."""


@fast_float32()
def model_influence(
    model: LoadedModel,
    tokens_T: torch.Tensor,
    clean_TD: torch.Tensor,
    *,
    layer: int,
    head: int,
    donors_PE: torch.Tensor,
    removals_AEE: torch.Tensor,
) -> torch.Tensor:
    """(A, P) float64 on the CPU: KL of the model to the model with each ablation, by position, nats.

    The last P positions are ablated, all at once: the effect at a position comes from its own ablation and those
    before it. `clean_TD` is the final residual of the model as it is. Raises `RequestError` for a model that
    cannot be run so.
    """
    P = len(donors_PE)
    most = max(1, (CPU_TOKENS if model.device.type == "cpu" else CUDA_TOKENS) // len(tokens_T))
    parts = []
    for some in slices(len(removals_AEE), most):
        ablated_ATD = ablated_finals(
            model, tokens_T, layer=layer, head=head, donors_PE=donors_PE, removals_AEE=removals_AEE[some]
        )
        parts.append(_kl(model, clean_TD[-P:], ablated_ATD[:, -P:]))
    return torch.cat(parts)


def ablated_finals(
    model: LoadedModel,
    tokens_T: torch.Tensor,
    *,
    layer: int,
    head: int,
    donors_PE: torch.Tensor,
    removals_AEE: torch.Tensor,
) -> torch.Tensor:
    """(A, T, D) the residual after the last norm with each ablation of the head's z at the last P positions."""
    A, P = len(removals_AEE), len(donors_PE)

    def ablate(value_1THE: torch.Tensor) -> torch.Tensor:
        changed_ATHE = value_1THE.expand(A, -1, -1, -1).clone()
        z_PE = value_1THE[0, -P:, head]
        changed_ATHE[:, -P:, head] = z_PE + (donors_PE - z_PE) @ removals_AEE
        return changed_ATHE

    final_ATD = run_edited(model, tokens_T[None], [Edit(layer=layer, z=ablate)])
    if len(final_ATD) != A:
        raise RequestError(
            f"{model.source.record.architecture} does not run many ablations of one sequence in TransformerLens"
        )
    return final_ATD


@torch.inference_mode()
def _kl(model: LoadedModel, clean_PD: torch.Tensor, ablated_APD: torch.Tensor) -> torch.Tensor:
    kl_AP = torch.empty(ablated_APD.shape[:2], dtype=torch.float64)
    for rows in logit_blocks(len(clean_PD), model.W_U_DV.shape[1], model.device):
        clean_BV = model.logits(clean_PD[rows])
        log_p_BV = clean_BV.log_softmax(-1)
        p_BV = log_p_BV.exp()
        for a, ablated_PD in enumerate(ablated_APD):
            change_BV = (
                (ablated_PD[rows] - clean_PD[rows]) @ model.W_U_DV  # rounds less than a difference of logits
                if model.logit_cap is None
                else model.logits(ablated_PD[rows]) - clean_BV
            )
            kl_AP[a, rows] = kl_of_change(p_BV, log_p_BV, change_BV).double().cpu()
    return kl_AP
