"""Heads taken away: z of a head is replaced by its mean at every position.

In: a loaded model, sequences of tokens, and the means. Out: the loss on the second copy of repeated random tokens, or the
final residual at the last position without each head.
Shapes: B sequences, T tokens, L layers, H heads, E d_head, D d_model.
"""

from collections.abc import Iterator, Sequence

import torch

from alens.heads import Head
from alens.model import activations
from alens.model.edits import Change, Edit, run_edited
from alens.model.models import LoadedModel
from alens.model.partial_pass import CleanPass, without_heads

COPIES = 32
"""Sequences that one pass takes, each with one head changed."""


def mean_z(model: LoadedModel, batches: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
    """(H, E) E[z] of each layer over the sequences, without their first positions."""
    layers = range(len(model.W_O_LHED))
    sums = {layer: torch.zeros(model.W_O_LHED.shape[1:3], dtype=torch.float64) for layer in layers}
    for tokens_BT in batches:
        with torch.inference_mode():
            ran = activations.run(model, tokens_BT, layers)
        for layer in layers:
            sums[layer] += ran.z_BTHE[layer][:, 1:].double().sum((0, 1))
    rows = sum(len(tokens_BT) * (tokens_BT.shape[1] - 1) for tokens_BT in batches)
    return {layer: (sum_HE / rows).float() for layer, sum_HE in sums.items()}


def repeated_loss(
    model: LoadedModel,
    tokens_BT: torch.Tensor,
    length: int,
    heads: Sequence[Head],
    means: dict[int, torch.Tensor],
) -> float:
    """Mean cross-entropy of the last `length` tokens, without some heads, nats."""
    edits = [Edit(layer=layer, head=head, z=_always(means[layer][head])) for layer, head in heads]
    final_BTD = run_edited(model, tokens_BT, edits)[:, -length - 1 : -1]
    with torch.inference_mode():
        logits = final_BTD.flatten(0, 1) @ model.W_U_DV + model.b_U_V
        return float(torch.nn.functional.cross_entropy(logits, tokens_BT[:, -length:].flatten()))


def last_without_each(
    model: LoadedModel, clean: CleanPass, layer: int, mean_HE: torch.Tensor
) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor]]:
    """(head, sequence) pairs, and (C, D) the final residual at the last position of each, without that head."""
    sequences = range(len(clean.tokens_BT))
    copies = [(head, sequence) for head in range(len(mean_HE)) for sequence in sequences]
    for start in range(0, len(copies), COPIES):
        some = copies[start : start + COPIES]
        yield some, without_heads(model, clean, layer, some, mean_HE)[:, -1]


def _always(mean_E: torch.Tensor) -> Change:
    """The change of a head's z to its mean, at every position."""

    def change(z_BTE: torch.Tensor) -> torch.Tensor:
        return mean_E.to(z_BTE.dtype).expand_as(z_BTE)

    return change
