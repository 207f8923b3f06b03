"""The readings that are judged side by side: lenses, and the baselines beside them.

In: lenses, a cache, and what can be had for baselines. Out: `Panel`: which readings there are, and for some rows a
function each that gives their logits. Maps are made once and kept on the device.

    lens           a head's own                       z, through the lens
    unembedding    a head's own                       z W_O behind the last norm, W_U and b_U; of residual sites the Logit Lens
    mean_output    one for all                        reads nothing
    logit_lens     one a layer, where resid_post is   norm(h) W_U + b_U
    tuned_lens     one a layer, where one is given    norm(h A + c) W_U + b_U
    model          one for all, with exact teacher    the model itself, no baseline: what cannot be beaten

Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from alens.evaluation.sums import Reading
from alens.lens.lenses import Lenses
from alens.lens.maps import OLD_NORM, AffineMaps, LayerLenses, LensMaps
from alens.rows.columns import Columns, RowReader
from alens.rows.final_norm import FinalNorm
from alens.rows.teacher import ExactTeacher, Teacher
from alens.store.arrays import site_name
from alens.store.cache_reader import Cache
from alens.store.model_record import NO_NORM, NormRecord
from alens.store.schema import RESIDUAL_STREAM

LENS, UNEMBEDDING, MEAN_OUTPUT = "lens", "unembedding", "mean_output"
LOGIT_LENS, TUNED_LENS, MODEL = "logit_lens", "tuned_lens", "model"
BASELINES = (MEAN_OUTPUT, UNEMBEDDING, LOGIT_LENS, TUNED_LENS)

SCALE = "targets/final_scale"


class Key(NamedTuple):
    """Which reading."""

    kind: str
    layer: int | None = None
    head: int | None = None
    """Its place among the heads that are judged."""


class Panel:
    """Attributes: `keys`, the readings in order; `columns`, what must be read beside the lenses' own values."""

    def __init__(
        self,
        lenses: Lenses,
        cache: Cache,
        layers: Sequence[int],
        device: torch.device,
        *,
        final_norm: FinalNorm | None = None,
        tuned_lens: Lenses | None = None,
    ) -> None:
        record, settings = lenses.record, cache.plan.settings
        self.layers, self.num_heads, self.device = tuple(layers), len(record.heads), device
        has_stream = RESIDUAL_STREAM in (settings.sites or ())
        # On lenses of the residual stream, the Logit Lens is the unembedding.
        with_logit_lens = has_stream and record.site != RESIDUAL_STREAM
        self._stream = has_stream and (with_logit_lens or tuned_lens is not None)
        stored = FinalNorm.of_cache(cache)
        unembeds = record.site == RESIDUAL_STREAM or cache.plan.model.no_write is None
        self._scaled = stored is not None and unembeds and record.site != RESIDUAL_STREAM
        self.columns = [site_name(layer, RESIDUAL_STREAM) for layer in layers] if self._stream else []
        self.columns += [SCALE] if self._scaled else []
        self._W_U_DV, self._b_U_V = (
            torch.from_numpy(cache.weights(name)).to(device) for name in ("W_U", "b_U")
        )
        d_model = cache.plan.model.d_model
        self._norm = (stored or final_norm or FinalNorm.bare(OLD_NORM, d_model)).to(device)
        # A cache of before the last norm was kept says no row's scale: heads are unembedded without the norm there.
        parts_norm = (stored or FinalNorm.bare(NormRecord(kind=NO_NORM, epsilon=0.0), d_model)).to(device)
        self._log_mean_V = log_mean_output(lenses, cache).to(device)
        self._lens = {layer: lenses.layer(layer).maps.to(device) for layer in layers}
        self._plain = {
            layer: unembedding(lenses.layer(layer), parts_norm, self._W_U_DV, self._b_U_V)
            for layer in layers
            if record.site != RESIDUAL_STREAM and unembeds
        }
        self._tuned = {
            layer: tuned_lens.layer(layer).maps.to(device) for layer in layers if tuned_lens is not None
        }
        self.keys: list[Key] = []
        for layer in layers:
            kinds = (LENS, UNEMBEDDING) if unembeds else (LENS,)
            self.keys += [Key(kind, layer, h) for kind in kinds for h in range(self.num_heads)]
            self.keys += [Key(LOGIT_LENS, layer)] if with_logit_lens else []
            self.keys += [Key(TUNED_LENS, layer)] if tuned_lens else []
        self.keys += [Key(MEAN_OUTPUT), *([Key(MODEL)] if settings.exact_teacher else [])]
        self.places = {key: place for place, key in enumerate(self.keys)}

    def baseline(self, kind: str, lens: Key) -> int | None:
        """Where the baseline of a lens is among the readings; None where there is none of that kind."""
        keys = (Key(kind, lens.layer, lens.head), Key(kind, lens.layer), Key(kind))
        return next((self.places[key] for key in keys if key in self.places), None)

    def readings(self, reader: RowReader, columns: Columns, teacher: Teacher) -> list[Reading]:
        """One for each key, of the rows that `columns` hold."""
        values = {layer: reader.z(columns, layer) for layer in self.layers}
        stream = {}
        if self._stream:
            names = {layer: site_name(layer, RESIDUAL_STREAM) for layer in self.layers}
            stream = {
                layer: torch.from_numpy(np.ascontiguousarray(columns.by_name[name])).to(self.device)
                for layer, name in names.items()
            }
        if self._scaled:
            self._scale_N1 = torch.from_numpy(columns.by_name[SCALE]).to(self.device)[:, None]
        return [self._reading(key, values, stream, teacher) for key in self.keys]

    def _reading(
        self, key: Key, values: dict[int, torch.Tensor], stream: dict[int, torch.Tensor], teacher: Teacher
    ) -> Reading:
        if key.layer is None:
            if key.kind == MODEL and isinstance(teacher, ExactTeacher):
                return partial(self._model, teacher)
            return self._mean_output
        z_NHE, head = values[key.layer], key.head or 0
        if key.kind == LENS:
            return partial(_mapped, self._lens[key.layer], head, z_NHE[:, head])
        if key.kind == TUNED_LENS:
            return partial(_mapped, self._tuned[key.layer], 0, stream[key.layer])
        if key.kind == UNEMBEDDING and key.layer in self._plain:
            written_NE = z_NHE[:, head].float() / self._scale_N1 if self._scaled else z_NHE[:, head]
            return partial(_mapped, self._plain[key.layer], head, written_NE)
        return partial(self._logit_lens, z_NHE[:, 0] if key.kind == UNEMBEDDING else stream[key.layer])

    def _mean_output(self, rows: slice) -> torch.Tensor:
        return self._log_mean_V.expand(rows.stop - rows.start, -1)

    def _model(self, teacher: ExactTeacher, rows: slice) -> torch.Tensor:
        return torch.addmm(self._b_U_V, teacher.final_ND[rows].float(), self._W_U_DV)

    def _logit_lens(self, stream_ND: torch.Tensor, rows: slice) -> torch.Tensor:
        return torch.addmm(self._b_U_V, self._norm(stream_ND[rows].float()), self._W_U_DV)


def _mapped(maps: LensMaps, head: int, values_NE: torch.Tensor, rows: slice) -> torch.Tensor:
    return maps.logits(head, values_NE[rows])


def unembedding(
    fitted: LayerLenses, norm: FinalNorm, W_U_DV: torch.Tensor, b_U_V: torch.Tensor
) -> AffineMaps:
    """What the model's unembedding says, behind its last norm, of the same values divided by the norm's scale."""
    heads, d_model = fitted.maps.num_heads, len(W_U_DV)
    W_O_HED = torch.eye(d_model)[None] if fitted.W_O_HED is None else fitted.W_O_HED
    weight_HEV = torch.matmul(norm.linear(W_O_HED.to(W_U_DV)), W_U_DV)
    return AffineMaps(weight_HEV=weight_HEV, bias_HV=(norm.offset_D @ W_U_DV + b_U_V).expand(heads, -1))


def log_mean_output(lenses: Lenses, cache: Cache) -> torch.Tensor:
    """(V,) of the text that the lenses were fitted on; of this cache where they do not say."""
    said = lenses.log_mean_output()
    if said is not None:
        return said
    return torch.from_numpy(cache.log_mean_output(cache.shards))
