"""Effect lenses: what a head adds to the model's logits, all in all, as a linear map of its z.

In: a directory that `alens fit --lens effect` or `--lens jacobian` wrote. Out: the change of the final normed residual that a
head makes by its z, beside what it makes on average; times W_U it is in logits. It is an addition to logits and not a
distribution, so that no command takes these lenses for others. An effect lens was fitted to measured effects. A Jacobian
lens is the mean Jacobian from z to the residual stream, centred and multiplied by the gain of the last norm as the norm
does; as with a direct write, where that map is W_O, each row is divided by the scale of its own norm.
Shapes: H heads, T tokens (any number of rows), E d_head, D d_model.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alens.errors import RequestError
from alens.lens.directory import layer_file, layer_metadata
from alens.lens.lenses import Lenses
from alens.lens.maps import MEAN_Z
from alens.lens.record import ADDITIONS, JACOBIAN


class EffectLenses(Lenses):
    """The effect or Jacobian lenses of a directory or repository.

    Attributes: `at_row`, whether what they say is divided by the scale of the last norm at each row.
    """

    def __init__(self, root: Path | str) -> None:
        """Open a directory, or `hf://OWNER/NAME[@REVISION]`.

        Raises `RequestError` when it holds no effect lenses, `DamageError` when it is damaged.
        """
        super().__init__(root)
        self._effects: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.at_row = self.record.form == JACOBIAN
        if self.record.form not in ADDITIONS:
            raise RequestError(
                f"{self.name} holds {self.record.design} lenses, not effect lenses: give a directory that "
                "`alens fit --lens effect` or `--lens jacobian` wrote"
            )

    def has(self, layer: int, head: int) -> bool:
        """Whether an effect lens of this head was fitted."""
        return (layer, head) in self.record.lenses

    def maps(self, layer: int, heads: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E, D) map and (H, E) mean z of these heads, float32. Of Jacobian lenses the map is that of a row whose last norm
        divides by 1.

        Raises `RequestError` for a head that was not fitted, `DamageError` when the file was altered.
        """
        places = [self.place(layer, head) for head in heads]
        if layer not in self._effects:
            model, fitted = self.record.model, self.record.lenses.by_layer[layer]
            whole = len(fitted), model.d_head, model.d_model
            form = self.record.form
            shapes = {form: whole, "W_O": whole, MEAN_Z: whole[:2]}
            name = layer_file(layer)
            tensors = self._load(name, shapes, metadata=layer_metadata(layer, fitted), halves=(form, "W_O"))
            self._check_heads(layer, tensors["W_O"])
            self._effects[layer] = tensors[form], tensors[MEAN_Z]
        effect_HED, mean_HE = self._effects[layer]
        return effect_HED[places], mean_HE[places]

    def final(
        self, layer: int, heads: Sequence[int], z_HTE: torch.Tensor, scale_T: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(H, T, D) float32: what each head adds to the final normed residual by these z, beside what it adds on average.

        `scale_T` is what the last norm divides each row by: Jacobian lenses need it, effect lenses do not read it. Raises
        like `maps`.
        """
        effect_HED, mean_HE = (part.to(z_HTE.device) for part in self.maps(layer, heads))
        final_HTD = (z_HTE.float() - mean_HE[:, None]) @ effect_HED
        if not self.at_row:
            return final_HTD
        if scale_T is None:
            raise RequestError(
                f"{self.name} holds Jacobian lenses, which are read at the scale of the last norm at each row: give it"
            )
        return final_HTD / scale_T.float()[:, None]


def load_effect_lenses(path: Path | str) -> EffectLenses:
    """Open effect lenses; every file is compared with the hash in `lens.json` when it is first read.

    Raises `RequestError` when there are none, `DamageError` when they are damaged.
    """
    return EffectLenses(path)
