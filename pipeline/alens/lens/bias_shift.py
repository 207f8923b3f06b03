"""What the bias of a map into the unembedding lacks, as a shift in front of the unembedding.

`UnembeddedMaps` take half of the whole spread of a logit off the log mean output; `closed_form.normal_bias` takes less off,
`w (1 + G)^-1 w`. In: maps on white z. Out: for each the shift whose logits are nearest to the difference, by least squares
under the mean output.
Shapes: H heads, E width, D d_model, R axes of a map, S tokens that stand for all.
"""

from dataclasses import dataclass

import torch

from alens.lens.maps import LensEnding

TOKENS = 8192
"""Tokens with the largest share of the mean output stand for all: 95 % of it on SmolLM2, where all 49,152 give readings with
the same KL to 0.0001 nats."""

SMALLEST_RATIO = 1e-4
"""Directions of the unembedding with less than this share of the largest variance are taken as if they had it."""

LEFT_OUT = 0.002
"""Axes of a map that together change the spread of a logit by no more, in the mean over the mean output, are left out."""


@dataclass(frozen=True, kw_only=True)
class BiasShift:
    """The same for all layers; float32, on one device."""

    columns_DS: torch.Tensor
    """Columns of `W_U` around their mean under the mean output."""
    probs_S: torch.Tensor
    """The mean output on these tokens; sums to 1."""
    nearest_DS: torch.Tensor
    """From logits to the shift whose logits are nearest."""

    @classmethod
    def before(cls, ending: LensEnding) -> "BiasShift":
        """For maps that end so."""
        probs_V = ending.log_mean_V.softmax(-1)
        probs_S, tokens_S = probs_V.topk(min(TOKENS, len(probs_V)))
        probs_S = probs_S / probs_S.sum()
        columns_DS = ending.W_U_DV[:, tokens_S] - ending.centre_D[:, None]
        variance_D, axes_DD = torch.linalg.eigh(((columns_DS * probs_S) @ columns_DS.T).double())
        floored_D = variance_D.clamp_min(float(variance_D[-1]) * SMALLEST_RATIO)
        inverse_DD = ((axes_DD / floored_D) @ axes_DD.T).float()
        return cls(columns_DS=columns_DS, probs_S=probs_S, nearest_DS=inverse_DD @ (columns_DS * probs_S))

    def shift(self, translator_HED: torch.Tensor) -> torch.Tensor:
        """(H, D) the shift of each map on white z."""
        return torch.stack([self._shift(translator_ED) for translator_ED in translator_HED])

    def _shift(self, translator_ED: torch.Tensor) -> torch.Tensor:
        logits_ES = translator_ED @ self.columns_DS
        grows_E, axes_EE = torch.linalg.eigh((logits_ES * self.probs_S) @ logits_ES.T)
        grows_E = grows_E.clamp_min(0)
        too_much_E = grows_E / (1 + grows_E)  # the share of each axis' spread that is taken off too much
        kept = (grows_E * too_much_E).cumsum(0) > LEFT_OUT
        along_RS = axes_EE[:, kept].T @ logits_ES
        lacking_S = (along_RS.square() * too_much_E[kept, None]).sum(0) / 2
        shift_D: torch.Tensor = self.nearest_DS @ (lacking_S - lacking_S @ self.probs_S)
        return shift_D
