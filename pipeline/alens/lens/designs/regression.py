"""`regression`: the final residual regressed on z, unembedded. No step is taken.

Least squares give the map from z of a head to the final residual (after the model's last norm) in closed form, from
moments alone (`lens.closed_form`). It is kept as `UnembeddedMaps`, whose bias follows from it, with the shift that this bias
lacks (`lens.bias_shift`).
Shapes: H heads, E d_head, D d_model.
"""

import torch

from alens.lens.bias_shift import BiasShift
from alens.lens.closed_form import ClosedForm
from alens.lens.designs.design import Design, Ground
from alens.lens.unembedded_maps import UnembeddedMaps
from alens.lens.whitening import Whitening


class Regression(Design):
    """White by the moments of the regression itself, so that its spread is that of these rows."""

    trained = False

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._at(ground.whitening, torch.zeros(ground.num_heads, ground.width, len(ground.W_U_DV)))

    def start_at(self, closed: ClosedForm) -> None:
        whitening = Whitening.from_moments(closed.mean_HE, closed.covariance_HEE)
        self._at(whitening, closed.white(whitening))
        lacking = self.ground.once("bias shift", lambda: BiasShift.before(self.ground.ending))
        self.shift_HD = lacking.shift(self.translator_HED)

    def _at(self, whitening: Whitening, translator_HED: torch.Tensor) -> None:
        device = self.ground.log_mean_output_V.device
        self.whitening, self.translator_HED = whitening.to(device), translator_HED.to(device)
        self.shift_HD = torch.zeros_like(self.translator_HED[:, 0])

    def maps(self) -> UnembeddedMaps:
        return UnembeddedMaps(
            translator_HED=self.translator_HED.clone(),
            shift_HD=self.shift_HD.clone(),
            mean_HE=self.whitening.mean_HE,
            scale_HEE=self.whitening.scale_HEE,
            ending=self.ground.ending,
        )

    def nothing(self) -> UnembeddedMaps:
        maps = self.maps()
        maps.translator_HED.zero_()
        maps.shift_HD.zero_()
        return maps
