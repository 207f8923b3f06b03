"""What a head writes: the tokens that its output raises and lowers by itself, in logits.

In: z of some rows, its mean, W_O, the last norm and what it divides each row by. Out: the direct write
`((z - E[z]) W_O) gain / scale`, a part of the final normed residual, and its logits, centred over the vocabulary. A norm
behind attention is in W_O by its gain, and in the scale. This is
direct logit attribution against the head's mean, with the last norm held at the row ("Interpretability in the Wild",
arXiv 2211.00593). It leaves out whatever later layers make of the head's output, and later heads may erase what an
earlier one wrote (arXiv 2310.07325).
Shapes: N rows (any leading axes), E d_head, D d_model, V vocabulary.
"""

from collections.abc import Sequence

import torch

from alens.rows.final_norm import FinalNorm


def direct_write(
    z_NE: torch.Tensor,
    mean_E: torch.Tensor,
    W_O_ED: torch.Tensor,
    norm: FinalNorm,
    scale_N: torch.Tensor,
) -> torch.Tensor:
    """(N, D) float32: what the head adds to the final normed residual of each row, beside what it adds on average.

    `scale_N` is what norms divide each row by, the last one and one behind attention (`RowScales.write`). With z (H, N, E), a mean
    (H, 1, E) and W_O (H, E, D) it gives all heads of a layer at once.
    """
    written_ND = (z_NE.float() - mean_E.float()) @ W_O_ED.float()
    return norm.linear(written_ND) / scale_N.float()[..., None]


def centred_logits(
    final_ND: torch.Tensor, W_U_DV: torch.Tensor, tokens: Sequence[int] | None = None
) -> torch.Tensor:
    """(N, V) float32: what a part of the final normed residual adds to each logit beside what it adds to the mean logit of
    the vocabulary; (N, C) for `tokens` alone. What all logits have in common makes no difference to the model's output.
    """
    columns_DC = W_U_DV if tokens is None else W_U_DV[:, list(tokens)]
    common_N1 = (final_ND.float() @ W_U_DV.float().mean(-1))[..., None]
    logits_NC: torch.Tensor = final_ND.float() @ columns_DC.float() - common_N1
    return logits_NC
