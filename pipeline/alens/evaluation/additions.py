"""What a reading says that a head adds to the logits, in a form in which vocabularies need not be looked at.

In: features of some rows, and the map from them to logits. Out: inner products with measured effects, over the whole
vocabulary and centred over it, from small matrices: for features x and y of maps A and B, the product of two rows of logits is
`x (A B') y'`, and A B' is made once a head. So correlation and explained variance are exact, and cost no pass over rows x
vocabulary. Signs need the logits themselves.
Shapes: N rows, F features, D d_model, V vocabulary.
"""

from dataclasses import dataclass

import torch

Matrices = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""By the place of a map in memory, its products with the unembedding, and with itself."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What one reading says that a head adds: `features weight + constant`, up to what all logits of a row have in common."""

    features_NF: torch.Tensor
    """float32."""
    weight_FV: torch.Tensor
    constant_V: torch.Tensor | None = None

    def logits(self, rows_B: torch.Tensor) -> torch.Tensor:
        """(B, V) float32, centred over the vocabulary, at these rows."""
        logits_BV = self.features_NF[rows_B] @ self.weight_FV
        if self.constant_V is not None:
            logits_BV += self.constant_V
        return logits_BV.sub_(logits_BV.mean(1, keepdim=True))


class CentredProducts:
    """Inner products over the vocabulary, with what the unembedding makes of a part of the final normed residual."""

    def __init__(self, W_U_DV: torch.Tensor) -> None:
        self.W_U_DV = W_U_DV
        self.gram_DD = _centred(W_U_DV) @ W_U_DV.T

    def squares(self, part_ND: torch.Tensor) -> torch.Tensor:
        """(N,) the sum of squares of the centred logits of a part of the residual."""
        return _product(part_ND @ self.gram_DD, part_ND)

    def of(
        self, addition: Addition, part_ND: torch.Tensor, kept: Matrices
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,) the products of an addition with the logits of a part of the residual, and its own sum of squares.

        `kept` holds the matrices of maps that several additions of a head share.
        """
        place = addition.weight_FV.data_ptr()
        if place not in kept:
            kept[place] = self._matrices(addition.weight_FV)
        cross_FD, own_FF = kept[place]
        x_NF = addition.features_NF
        if addition.constant_V is None:
            return _product(x_NF @ cross_FD, part_ND), _product(x_NF @ own_FF, x_NF)
        constant_V = addition.constant_V - addition.constant_V.mean()
        with_part_D, with_own_F = self.W_U_DV @ constant_V, addition.weight_FV @ constant_V
        crossed_N = _product(x_NF @ cross_FD + with_part_D, part_ND)
        return crossed_N, _product(x_NF @ own_FF + 2 * with_own_F, x_NF) + constant_V @ constant_V

    def _matrices(self, weight_FV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(F, D) and (F, F): the products of a map with the unembedding, and with itself."""
        if weight_FV is self.W_U_DV:
            return self.gram_DD, self.gram_DD
        centred_FV = _centred(weight_FV)
        return centred_FV @ self.W_U_DV.T, centred_FV @ weight_FV.T


def _centred(weight_FV: torch.Tensor) -> torch.Tensor:
    return weight_FV - weight_FV.mean(1, keepdim=True)


def _product(a_NF: torch.Tensor, b_NF: torch.Tensor) -> torch.Tensor:
    product_N: torch.Tensor = torch.linalg.vecdot(a_NF, b_NF).double()
    return product_N
