"""`tuned`: the Tuned Lens on a site of the residual stream: a map, the norm, the frozen unembedding.

"Eliciting Latent Predictions from Transformers with the Tuned Lens", arXiv 2303.08112: logits =
W_U norm(h + A h + c). It starts at A = 0, c = 0 and the gain and offset of the model's last norm: the Logit Lens.
Departures from the paper: A is trained on white h, and gain and offset are trained too, so the functions of the Tuned Lens
are among those that can be fitted. On caches from before the last norm was kept, the norm is a layer norm whose gain
starts at 1 and whose offset starts at 0. It needs values of width D (such as `--site resid_post`).
Shapes: H heads (1 on residual sites), N rows, D d_model, V vocabulary.
"""

import torch
from torch import nn

from alens.errors import RequestError
from alens.lens.designs.design import Design, Ground
from alens.lens.designs.readout import Readout
from alens.lens.maps import TranslatedMaps
from alens.rows.final_norm import normed


class Tuned(Design):
    """`translator` (H, D, D), `shift`, `gain` and `offset` (H, D), float32."""

    default_lr = 0.01
    """In the last layers it starts near its end, and 0.03 takes it away from there (docs/decisions/0032)."""

    def __init__(self, ground: Ground) -> None:
        """Raises `RequestError` for a site whose values are not as wide as the residual stream."""
        super().__init__(ground)
        H, E, D = ground.num_heads, ground.width, ground.W_U_DV.shape[0]
        if E != D:
            raise RequestError(
                f"the design `tuned` reads the residual stream, {D} wide, and these values are {E} wide: take --site resid_post, or `translator`"
            )
        whitening, device = ground.whitening, ground.log_mean_output_V.device
        self.unwhite_HDD = torch.linalg.inv(whitening.scale_HEE.double()).float()
        # In units of the spread of the values, so that a learning rate means the same on every layer.
        self.spread = float(self.unwhite_HDD.pow(2).sum((1, 2)).div(D).sqrt().mean())
        self.translator = nn.Parameter(torch.zeros(H, D, D, device=device))
        self.shift = nn.Parameter(torch.zeros(H, D, device=device))
        norm = ground.final_norm()
        self.norm = norm.record
        self.gain = nn.Parameter(norm.gain_D.to(device).expand(H, -1).clone())
        self.offset = nn.Parameter(norm.offset_D.to(device).expand(H, -1).clone())

    def readout(self, white_HNE: torch.Tensor) -> Readout:
        unwhite_HDD = self.unwhite_HDD
        stream_HND = torch.bmm(white_HNE, unwhite_HDD) + self.ground.whitening.mean_HE[:, None]
        moved_HND = torch.bmm(white_HNE.to(self.translator.dtype), self.translator) + self.shift[:, None]
        normed_HND = normed(stream_HND + self.spread * moved_HND, self.norm)
        features_HND = normed_HND * self.gain[:, None] + self.offset[:, None]
        H = len(white_HNE)
        return Readout(features_HND, self.ground.W_U_DV.expand(H, -1, -1), self.ground.b_U_V.expand(H, -1))

    def maps(self) -> TranslatedMaps:
        whitening = self.ground.whitening
        with torch.no_grad():
            moved_HDD, shift_HD = whitening.fold(self.translator.float(), self.shift.float())
            identity_DD = torch.eye(len(self.ground.W_U_DV), device=moved_HDD.device)
            return TranslatedMaps(
                translator_HED=identity_DD + self.spread * moved_HDD,
                shift_HD=self.spread * shift_HD,
                gain_HD=self.gain.detach().float().clone(),
                offset_HD=self.offset.detach().float().clone(),
                W_U_DV=self.ground.W_U_DV,
                b_U_V=self.ground.b_U_V,
                norm=self.norm,
            )
