"""`translator`: a small map into the residual stream, then the frozen unembedding.

It has E x D numbers for each head in place of E x V. The map goes to the space behind the model's last norm, where the
unembedding acts, so a lens stays affine, and is saved as `UnembeddedMaps`: logits = (white T + c) W_U + log mean output
- spread / 2. It starts at T = 0 and c = 0, the mean output, or at the closed form. Departures from the Tuned Lens
(arXiv 2303.08112): no norm between the map and the unembedding (`tuned` has it), and a bias over the vocabulary that
follows from T. With unit covariance of white z, the lens is a linear discriminant: a token's logit falls with the squared
distance between z and the token's place, as if z were normal around it.
T is trained in coordinates in which W_U is white under the mean output, so that all directions are equally steep.
Shapes: H heads, E width, D d_model, V vocabulary.
"""

import torch
from torch import nn

from alens.lens.bias_shift import BiasShift
from alens.lens.closed_form import ClosedForm
from alens.lens.designs.design import Ground, ProductDesign
from alens.lens.designs.white_unembedding import WhiteUnembedding
from alens.lens.unembedded_maps import UnembeddedMaps


class Translator(ProductDesign):
    """`translator` (H, E, D) and `shift` (H, D), float32, in the coordinates of `basis`."""

    starts_at_closed_form = True
    closed_form_lr = 0.0003
    default_lr = 0.001
    """Every number moves all logits: with 0.03 losses rose to 40 nats at V = 49,152 (docs/decisions/0032)."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.white = WhiteUnembedding.on(ground)
        self.root_DD, self.basis_DV = self.white.root_DD, self.white.basis_DV
        H, E, D, device = ground.num_heads, ground.width, len(self.root_DD), self.root_DD.device
        self.translator = nn.Parameter(torch.zeros(H, E, D, device=device))
        self.shift = nn.Parameter(torch.zeros(H, D, device=device))

    def start_at(self, closed: ClosedForm) -> None:
        translator_HED = closed.white(self.ground.whitening).to(self.root_DD.device)
        lacking = self.ground.once("bias shift", lambda: BiasShift.before(self.ground.ending))
        with torch.no_grad():
            self.translator.copy_(translator_HED @ self.white.unroot_DD)
            self.shift.copy_(lacking.shift(translator_HED) @ self.white.unroot_DD)

    def affine_of(self, *parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ending, basis_DV = self.ground.ending, self.basis_DV
        translator_HED, shift_HD = (parameter.to(basis_DV.dtype) for parameter in parameters)
        weight_HEV = torch.matmul(translator_HED, basis_DV)
        centre_HE = translator_HED @ (self.root_DD @ ending.centre_D)
        spread_HV = (weight_HEV - centre_HE[..., None]).square().sum(1)
        return weight_HEV, ending.log_mean_V - spread_HV / 2 + shift_HD @ basis_DV

    def maps(self) -> UnembeddedMaps:
        with torch.no_grad():
            return self._maps(self.translator.float() @ self.root_DD, self.shift.float() @ self.root_DD)

    def nothing(self) -> UnembeddedMaps:
        return self._maps(torch.zeros_like(self.translator), torch.zeros_like(self.shift))

    def _maps(self, translator_HED: torch.Tensor, shift_HD: torch.Tensor) -> UnembeddedMaps:
        whitening = self.ground.whitening
        return UnembeddedMaps(
            translator_HED=translator_HED,
            shift_HD=shift_HD,
            mean_HE=whitening.mean_HE.clone(),
            scale_HEE=whitening.scale_HEE.clone(),
            ending=self.ground.ending,
        )
