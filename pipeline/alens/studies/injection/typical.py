"""Typical values of heads: mean and covariance of their values, and the size of what they write, over some rows.

In: tokens. Out: a `Typical` for each head (or for each layer, for lenses of the residual stream). It gives
injections their unit, mean ablations their values, and directions the point where a gradient is taken. The first
position of a sequence is left out, as in every fit of alens.
Shapes: B sequences, T tokens, N rows, H heads, E width of the site's values (d_head for z), D d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alens.errors import RequestError
from alens.model import activations
from alens.model.models import LoadedModel
from alens.rows import moments
from alens.store.schema import ATTN_Z


@dataclass(frozen=True, kw_only=True)
class Typical:
    """The statistics of one head."""

    mean_E: torch.Tensor
    """float32: the mean of its values."""
    covariance_EE: torch.Tensor
    """float32: their covariance."""
    output_norm: float
    """Root mean square, over rows, of the norm of what it writes into the residual stream."""
    final_mean_D: torch.Tensor
    """float32: the mean of the residual after the last norm."""
    rows: int
    """How many rows were counted."""


def typical(
    model: LoadedModel, batches: Sequence[torch.Tensor], layers: Sequence[int], *, site: str = ATTN_Z
) -> dict[tuple[int, int | None], Typical]:
    """Statistics by (layer, head), or by (layer, None) for a site of the residual stream; one pass over `batches`
    (B, T).

    Raises `RequestError` when the sequences have no second position.
    """
    on_z = site == ATTN_Z
    sums: dict[int, torch.Tensor] = {}
    squares: dict[int, torch.Tensor] = {}
    written: dict[
        int, torch.Tensor
    ] = {}  # squares of what reaches W_O: divided by the norm behind attention, if there is one
    final_D = torch.zeros(model.W_U_DV.shape[0], dtype=torch.float64, device=model.device)
    rows = 0
    for tokens_BT in batches:
        if tokens_BT.shape[1] < 2:
            continue
        with torch.inference_mode():
            ran = activations.run(model, tokens_BT, layers, () if on_z else (site,))
            rows += len(tokens_BT) * (tokens_BT.shape[1] - 1)
            final_D += ran.final_BTD[:, 1:].flatten(0, 1).double().sum(0)
            for layer in layers:
                values = ran.z_BTHE[layer] if on_z else ran.sites_BTD[site, layer][:, :, None]
                values_HNE = values[:, 1:].flatten(0, 1).double().transpose(0, 1)
                sum_HE, outer_HEE = moments.sums(values_HNE)
                sums[layer] = sums.get(layer, 0) + sum_HE
                squares[layer] = squares.get(layer, 0) + outer_HEE
                scale_BT = ran.write_scale_BT.get(layer) if on_z else None
                if scale_BT is not None:
                    _, outer_HEE = moments.sums(values_HNE / scale_BT[:, 1:].flatten()[:, None].double())
                written[layer] = written.get(layer, 0) + outer_HEE
    if not rows:
        raise RequestError(
            "a text of one token has no position after the first: give a longer prompt, or --text"
        )
    typicals: dict[tuple[int, int | None], Typical] = {}
    for layer in layers:
        of_heads = zip(sums[layer], squares[layer], written[layer], strict=True)
        for head, (sum_E, square_EE, written_EE) in enumerate(of_heads):
            W_O_ED = model.W_O_LHED[layer, head].double() if on_z else None
            typicals[layer, head if on_z else None] = _one(
                sum_E, square_EE, written_EE, W_O_ED, final_D, rows
            )
    return typicals


def _one(
    sum_E: torch.Tensor,
    square_EE: torch.Tensor,
    written_EE: torch.Tensor,
    W_O_ED: torch.Tensor | None,
    final_D: torch.Tensor,
    rows: int,
) -> Typical:
    mean_E, covariance_EE = moments.of_sums(sum_E, square_EE, rows)
    second_EE = written_EE / rows
    # E |z W_O|^2 = trace(W_O^T E[z^T z] W_O)
    squared = second_EE.trace() if W_O_ED is None else ((W_O_ED @ W_O_ED.T) * second_EE).sum()
    return Typical(
        mean_E=mean_E.float(),
        covariance_EE=covariance_EE.float(),
        output_norm=float(squared.clamp_min(0).sqrt()),
        final_mean_D=(final_D / rows).float(),
        rows=rows,
    )
