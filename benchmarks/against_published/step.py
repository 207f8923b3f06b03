"""The training step of "Attention Lens" (arXiv 2310.16270), by a `Recipe`: model forward, lenses, loss.

In: a batch of tokens. Out: the loss, differentiable in the lenses' weights. Written from what the published
code does, not from its text: the whole model at every step, all of its logits, a linear map a head.
Shapes: B sequences, T tokens, N rows that the loss reads, H heads, E d_head, D d_model, V vocabulary,
C what the map reads (D or E).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from against_published.recipe import Recipe
from against_published.text import TokenBatch
from alens.lens.whitening import Whitening
from alens.model.models import LoadedModel


def forward(model: LoadedModel, batch: TokenBatch, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(z (B, T, H, E), logits (B, T, V)) of the frozen model: every logit, as published."""
    values = []

    def keep(value_BTHE: torch.Tensor, hook: Any) -> None:
        values.append(value_BTHE)

    with torch.no_grad():
        logits_BTV = model.bridge.run_with_hooks(
            batch.tokens_BT,
            attention_mask=batch.real_BT,
            return_type="logits",
            fwd_hooks=[(f"blocks.{layer}.attn.hook_z", keep)],
        )
    return values[0], logits_BTV


class HeadLenses(nn.Module):
    """The lenses of a layer's heads: a linear map for each, in the recipe's coordinates."""

    def __init__(
        self,
        recipe: Recipe,
        model: LoadedModel,
        layer: int,
        whitening: Whitening,
        log_mean_output_V: torch.Tensor,
    ) -> None:
        super().__init__()
        self.recipe, self.whitening = recipe, whitening
        self.W_O_HED = model.W_O_LHED[layer]
        H = len(self.W_O_HED)
        unembedding_CV = model.W_U_DV.expand(H, -1, -1)
        if recipe.coordinates != "output":
            unembedding_CV = self.W_O_HED @ unembedding_CV
        bias_V = model.b_U_V
        if recipe.from_mean_output:
            unembedding_CV, bias_V = torch.zeros_like(unembedding_CV), log_mean_output_V
        self.weights = nn.ParameterList([nn.Parameter(weight.clone()) for weight in unembedding_CV])
        self.biases = nn.ParameterList([nn.Parameter(bias_V.clone()) for _ in range(H)])

    def inputs(self, z_NHE: torch.Tensor) -> torch.Tensor:
        """(N, H, C): what the maps read."""
        if self.recipe.coordinates == "z":
            return z_NHE
        if self.recipe.coordinates == "white":
            return self.whitening.white(z_NHE).transpose(0, 1)
        return torch.einsum("nhe,hed->nhd", z_NHE, self.W_O_HED)

    def one_by_one(self, inputs_BTHC: torch.Tensor) -> torch.Tensor:
        """(B, T, H, V): a product for each head and each position, as published."""
        B, T, H, _ = inputs_BTHC.shape
        logits_BTHV = torch.empty(B, T, H, len(self.biases[0]))
        for head in range(H):
            logits_BTV = torch.empty(B, T, len(self.biases[0]))
            for position in range(T):
                logits_BTV[:, position] = F.linear(
                    inputs_BTHC[:, position, head], self.weights[head].T, self.biases[head]
                )
            logits_BTHV[:, :, head] = logits_BTV
        return logits_BTHV

    def together(self, inputs_NHC: torch.Tensor) -> torch.Tensor:
        """(N, H, V): all heads in one batched product."""
        weight_HCV, bias_HV = torch.stack(list(self.weights)), torch.stack(list(self.biases))
        logits_HNV = torch.baddbmm(bias_HV[:, None], inputs_NHC.transpose(0, 1), weight_HCV)
        return logits_HNV.transpose(0, 1)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E, V) and (H, V): the same lenses on z."""
        with torch.no_grad():
            weight_HCV, bias_HV = torch.stack(list(self.weights)), torch.stack(list(self.biases))
            if self.recipe.coordinates == "output":
                return self.W_O_HED @ weight_HCV, bias_HV
            if self.recipe.coordinates == "white":
                return self.whitening.fold(weight_HCV, bias_HV)
            return weight_HCV, bias_HV


def rows_read(recipe: Recipe, batch: TokenBatch) -> torch.Tensor:
    """(B, T) bool: the rows that the loss reads."""
    if recipe.every_position:
        return batch.real_BT.bool() & (torch.arange(batch.real_BT.shape[1]) > 0)
    last_BT = torch.zeros_like(batch.real_BT, dtype=torch.bool)
    last_BT[:, -1] = True  # the last column of the padded batch, whatever stands there: as published
    return last_BT


def loss(
    recipe: Recipe, lenses: HeadLenses, model: LoadedModel, batch: TokenBatch, layer: int
) -> torch.Tensor:
    """KL(model || lens), the mean over rows; of heads that have a loss each, the sum over heads."""
    z_BTHE, logits_BTV = forward(model, batch, layer)
    read_BT = rows_read(recipe, batch)
    if recipe.vectorised:
        lens_NHV = lenses.together(lenses.inputs(z_BTHE[read_BT]))
    else:
        inputs_BTHC = lenses.inputs(z_BTHE.flatten(0, 1)).unflatten(0, z_BTHE.shape[:2])
        lens_NHV = lenses.one_by_one(inputs_BTHC)[read_BT]
    if not recipe.each_head:
        lens_NHV = lens_NHV.sum(1, keepdim=True)
    log_model_N1V = F.log_softmax(logits_BTV[read_BT], dim=-1)[:, None]
    log_lens_NHV = F.log_softmax(lens_NHV, dim=-1)
    divergence_NHV = F.kl_div(log_lens_NHV, log_model_N1V, reduction="none", log_target=True)
    return divergence_NHV.sum((1, 2)).mean()
