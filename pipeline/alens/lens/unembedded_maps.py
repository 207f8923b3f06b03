"""The form of maps that end in the model's unembedding, with no norm before it: affine, and a hundredth of the size.

In: for each head a map into the space behind the last norm, of the width of the model; for all of them the unembedding
and the mean output. Out: logits, or the weight and bias of a head. Files hold E x D numbers a head in place of E x V.
Shapes: N rows, H heads, E width of the site's values, D d_model, R axes of a translator, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from alens.lens.maps import AffineMaps, LensEnding, Moves, Shared

SPREAD_LEFT_OUT = 0.01
"""Where few rows are read, axes of a translator are left out that together add so much to the spread of a logit in the mean
over the mean output. On SmolLM2 25 of 64 are left, and a reading moves by a KL of 3e-5 nats at most
(docs/decisions/0046)."""


@dataclass(frozen=True, kw_only=True)
class UnembeddedMaps(Moves):
    """logits = (white translator + shift) W_U + log mean output - spread / 2, with white = (z - mean) scale.

    Affine in z. `spread` is the variance of each logit over rows whose white z has unit covariance: where z is normal, it
    gives the lens's mean output the place of the model's. It follows from the translator, so no bias is kept.
    """

    form: ClassVar[str] = "unembedded"
    halves: ClassVar[frozenset[str]] = frozenset({"translator", "shift", "W_O", "W_U"})

    translator_HED: torch.Tensor
    shift_HD: torch.Tensor
    mean_HE: torch.Tensor
    scale_HEE: torch.Tensor
    ending: LensEnding

    @property
    def num_heads(self) -> int:
        return len(self.translator_HED)

    def logits(self, head: int, z_NE: torch.Tensor) -> torch.Tensor:
        white_NE = (z_NE.float() - self.mean_HE[head]) @ self.scale_HEE[head]
        columns, common = self.ending.W_U_DV.shape[1], self.ending.common_DS.shape[1]
        if (
            len(white_NE) >= white_NE.shape[1] or columns < common
        ):  # axes alone cost as much as `common` columns
            weight_EV, bias_V = self._on_white(head)
            return torch.addmm(bias_V, white_NE, weight_EV)
        moved_ND = torch.addmm(self.shift_HD[head], white_NE, self.translator_HED[head])
        axes_RD = self._axes(head)
        both_V = torch.cat([moved_ND, axes_RD]) @ self.ending.W_U_DV
        return both_V[: len(moved_ND)] + self._base(axes_RD, both_V[len(moved_ND) :])

    def affine(self, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(E, V) weight and (V,) bias of logits = z weight + bias, for one lens."""
        white_EV, bias_V = self._on_white(head)
        weight_EV = self.scale_HEE[head] @ white_EV
        return weight_EV, bias_V - self.mean_HE[head] @ weight_EV

    def folded(self) -> AffineMaps:
        """The weights of all heads: V / D times as much memory, and D / E times less work for each row."""
        parts = [self.affine(head) for head in range(self.num_heads)]
        return AffineMaps(
            weight_HEV=torch.stack([weight for weight, _ in parts]),
            bias_HV=torch.stack([b for _, b in parts]),
        )

    def _on_white(self, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        translator_ED = self.translator_HED[head]
        weight_EV = translator_ED @ self.ending.W_U_DV
        return weight_EV, self._base(translator_ED, weight_EV) + self.shift_HD[head] @ self.ending.W_U_DV

    def _axes(self, head: int) -> torch.Tensor:
        """(R, D) whose logits have the spread of the translator's, but for `SPREAD_LEFT_OUT` in the mean.

        They are its principal axes: most heads write along some of them, so few rows take less than all E.
        """
        logits_ES = self.translator_HED[head] @ self.ending.common_DS
        spread_E, axes_EE = torch.linalg.eigh(logits_ES @ logits_ES.T)
        left_out = int((spread_E.cumsum(0) <= SPREAD_LEFT_OUT).sum())
        axes_RD: torch.Tensor = axes_EE[:, left_out:].T @ self.translator_HED[head]
        return axes_RD

    def spread(self, head: int) -> torch.Tensor:
        """(V,) the variance of each logit over the rows of the fit, around the mean of all logits under the mean output."""
        translator_ED = self.translator_HED[head]
        return self._spread(translator_ED, translator_ED @ self.ending.W_U_DV)

    def _base(self, axes_RD: torch.Tensor, logits_RV: torch.Tensor) -> torch.Tensor:
        """(V,) log mean output - spread / 2."""
        return self.ending.log_mean_V - self._spread(axes_RD, logits_RV) / 2

    def _spread(self, axes_RD: torch.Tensor, logits_RV: torch.Tensor) -> torch.Tensor:
        centred_RV = logits_RV - (axes_RD @ self.ending.centre_D)[:, None]
        return centred_RV.square().sum(0)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {
            "translator": self.translator_HED,
            "shift": self.shift_HD,
            "mean": self.mean_HE,
            "scale": self.scale_HEE,
        }

    def shared_tensors(self) -> dict[str, torch.Tensor]:
        return {"W_U": self.ending.W_U_DV}

    @staticmethod
    def shapes(heads: int, width: int, d_model: int, d_vocab: int) -> dict[str, tuple[int, ...]]:
        """The shapes of `tensors()`, for checking a file."""
        return {
            "translator": (heads, width, d_model),
            "shift": (heads, d_model),
            "mean": (heads, width),
            "scale": (heads, width, width),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], shared: Shared) -> "UnembeddedMaps":
        return cls(
            translator_HED=tensors["translator"],
            shift_HD=tensors["shift"],
            mean_HE=tensors["mean"],
            scale_HEE=tensors["scale"],
            ending=shared.ending(),
        )
