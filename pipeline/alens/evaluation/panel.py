"""The readings that are judged side by side: lenses, and the baselines beside them.

In: lenses, a cache, and what there is for baselines. Out: a `Panel`: which readings there are, and for some rows the
functions that give their logits. Maps are made once and kept on the device. A new reading is a class in `baselines` and
an entry in `Panel`.
Shapes: V vocabulary.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch

from alens.evaluation.baselines import (
    Baseline,
    Constant,
    HeadMaps,
    LogitLens,
    ModelOutput,
    PartValues,
    StreamMaps,
    Unembedding,
)
from alens.evaluation.readings import Readings
from alens.heads import Heads
from alens.lens.lenses import Lenses
from alens.lens.maps import OLD_NORM, LayerLenses
from alens.rows.final_norm import FinalNorm
from alens.rows.held_out_rows import HeldOutPart
from alens.store.cache_reader import Cache
from alens.store.model_record import NO_NORM, NormRecord
from alens.store.schema import RESIDUAL_STREAM

LENS, UNEMBEDDING, MEAN_OUTPUT = "lens", "unembedding", "mean_output"
LOGIT_LENS, TUNED_LENS, MODEL = "logit_lens", "tuned_lens", "model"
BASELINES = (MEAN_OUTPUT, UNEMBEDDING, LOGIT_LENS, TUNED_LENS)


class Key(NamedTuple):
    """Which reading."""

    kind: str
    layer: int | None = None
    head: int | None = None
    """Its place among the heads of the layer that are judged."""


class PanelKeys:
    """Which readings there are. Attributes: `judged`, the heads; `keys` in order; `places`, by key; `num_own`, how many
    belong to layers: they stand before those of all layers."""

    def __init__(
        self, judged: Heads, of_heads: Sequence[str], of_layers: Sequence[str], of_all: Sequence[str]
    ) -> None:
        self.judged, self._kinds = judged, (*of_heads, *of_layers, *of_all)
        self.keys: list[Key] = []
        for layer, heads in judged.by_layer.items():
            self.keys += [Key(kind, layer, place) for kind in of_heads for place in range(len(heads))]
            self.keys += [Key(kind, layer) for kind in of_layers]
        self.num_own = len(self.keys)
        self.keys += [Key(kind) for kind in of_all]
        self.places = {key: place for place, key in enumerate(self.keys)}

    def baseline(self, kind: str, lens: Key) -> int | None:
        """The place of a lens's baseline among the readings; None where there is none of that kind."""
        keys = (Key(kind, lens.layer, lens.head), Key(kind, lens.layer), Key(kind))
        return next((self.places[key] for key in keys if key in self.places), None)

    def has(self, kind: str) -> bool:
        """Whether there is a reading of this kind."""
        return kind in self._kinds

    def of_layer(self, kind: str, layer: int) -> list[Key]:
        """The readings of a kind that belong to a layer."""
        return [key for key in self.keys if key.kind == kind and key.layer == layer]


class Panel:
    """Attributes: `order`, the readings; `columns`, what must be read beside the lenses' own values."""

    def __init__(
        self,
        lenses: Lenses,
        cache: Cache,
        judged: Heads,
        device: torch.device,
        *,
        final_norm: FinalNorm | None = None,
        tuned_lens: Lenses | None = None,
    ) -> None:
        record, settings, d_model = lenses.record, cache.plan.settings, cache.plan.model.d_model
        layers = judged.layers
        on_stream = record.site == RESIDUAL_STREAM
        stored = FinalNorm.of_cache(cache)
        W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).to(device) for name in ("W_U", "b_U"))
        norm = (stored or final_norm or FinalNorm.bare(OLD_NORM, d_model)).to(device)

        fitted = {layer: _selected(lenses, layer, heads) for layer, heads in judged.by_layer.items()}
        maps = {layer: of_layer.maps.to(device).folded() for layer, of_layer in fitted.items()}
        of_heads: dict[str, Baseline] = {LENS: HeadMaps(maps)}
        of_layers: dict[str, Baseline] = {}
        of_all: dict[str, Baseline] = {MEAN_OUTPUT: Constant(log_mean_output(lenses, cache).to(device))}
        if on_stream:  # there, the Logit Lens is the unembedding
            of_heads[UNEMBEDDING] = LogitLens(norm, W_U_DV, b_U_V, of_site=True)
        elif cache.plan.model.no_write is None:
            # A cache of before the last norm was kept has no row's scale: heads are unembedded without the norm there.
            norm_of_parts = (stored or FinalNorm.bare(NormRecord(kind=NO_NORM, epsilon=0.0), d_model)).to(
                device
            )
            of_heads[UNEMBEDDING] = Unembedding.of_lenses(
                fitted, norm_of_parts, W_U_DV, b_U_V, scaled=stored is not None
            )
        if RESIDUAL_STREAM in (settings.sites or ()) and not on_stream:
            of_layers[LOGIT_LENS] = LogitLens(norm, W_U_DV, b_U_V)
        if tuned_lens is not None:
            of_layers[TUNED_LENS] = StreamMaps(
                {layer: tuned_lens.read_layer(layer).maps.to(device) for layer in layers}
            )
        if settings.exact_teacher:
            of_all[MODEL] = ModelOutput(W_U_DV, b_U_V)

        self._kinds = of_heads | of_layers | of_all
        self.order = PanelKeys(judged, list(of_heads), list(of_layers), list(of_all))
        columns = (kind.columns(layers) for kind in self._kinds.values())
        self.columns = list(dict.fromkeys(chain.from_iterable(columns)))

    def readings(self, part: HeldOutPart, keys: Sequence[Key]) -> list[Readings]:
        """One for each key, for the rows of `part`."""
        values = PartValues(part)
        return [
            self._kinds[key.kind].reading(values, -1 if key.layer is None else key.layer, key.head or 0)
            for key in keys
        ]


def _selected(lenses: Lenses, layer: int, heads: Sequence[int]) -> LayerLenses:
    """The lenses of these heads of a layer."""
    fitted = lenses.read_layer(layer)
    places = [lenses.place(layer, head) for head in heads]
    if places == list(range(fitted.maps.num_heads)):  # selecting copies
        return fitted
    W_O_HED = None if fitted.W_O_HED is None else fitted.W_O_HED[places]
    mean_z_HE = None if fitted.mean_z_HE is None else fitted.mean_z_HE[places]
    return LayerLenses(maps=fitted.maps.select(places), W_O_HED=W_O_HED, mean_z_HE=mean_z_HE)


def log_mean_output(lenses: Lenses, cache: Cache) -> torch.Tensor:
    """(V,) float32: the log of the mean output over the text of the fit; over this cache where the lenses lack it."""
    log_mean_V = lenses.log_mean_output()
    if log_mean_V is not None:
        return log_mean_V
    return torch.from_numpy(cache.log_mean_output(cache.shards))
