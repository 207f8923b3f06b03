"""The readings that are judged side by side: lenses, and the baselines beside them.

In: lenses, a cache, and what there is for baselines. Out: a `Panel`: which readings there are, and for some rows the
functions that give their logits. Maps are made once and kept on the device. A new reading is a class in `baselines` and
an entry in `Panel`.
Shapes: V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch

from alens.evaluation.additions import Addition
from alens.evaluation.baselines import (
    Baseline,
    Constant,
    HeadMaps,
    LogitLens,
    ModelOutput,
    PartValues,
    SaysAddition,
    StreamMaps,
    TunedHeads,
    Unembedding,
)
from alens.evaluation.readings import Readings
from alens.evaluation.regressed import RandomDirections, regressed_heads
from alens.evaluation.scaled_write import ScaledWrite
from alens.heads import Heads
from alens.lens.effect_lenses import load_effect_lenses
from alens.lens.lenses import Lenses
from alens.lens.maps import OLD_NORM, AffineMaps, LensMaps, TranslatedMaps
from alens.lens.record import ADDITIONS
from alens.rows.final_norm import FinalNorm
from alens.rows.held_out_rows import HeldOutPart
from alens.rows.moments import mean_z
from alens.rows.row_scales import scale_columns
from alens.statistics.groups import Groups
from alens.store.cache_reader import Cache
from alens.store.model_record import NO_NORM, NormRecord
from alens.store.schema import RESIDUAL_STREAM

LENS, UNEMBEDDING, MEAN_OUTPUT, MODEL = "lens", "unembedding", "mean-output", "model"
WRITTEN, SCALED_WRITE = "written", "scaled-write"
TUNED_COMPOSITION, REGRESSION = "tuned-composition", "regression"
LOGIT_LENS, TUNED_LENS, RANDOM = "logit-lens", "tuned-lens", "random"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What lenses are judged beside."""

    baselines: tuple[str, ...]
    """Which readings are made here, of those that can be chosen (`choice`)."""
    groups: Groups
    """The groups of all the text: scalars of writes are fitted on the rows of others."""
    shards: tuple[int, ...]
    """Shards that no row is judged on, for what is regressed."""
    seed: int
    final_norm: FinalNorm | None
    tuned_lens: Lenses | None
    also: Mapping[str, Lenses]
    """Further lenses, by the names of their readings."""

    @property
    def num_maps(self) -> int:
        """How many readings of a head have maps of their own; the unembedding and what it is scaled by share theirs."""
        made = ({UNEMBEDDING, WRITTEN, SCALED_WRITE}, {TUNED_COMPOSITION}, {REGRESSION})
        return 1 + len(self.also) + sum(bool(some & set(self.baselines)) for some in made)


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

    @property
    def baselines(self) -> list[str]:
        """The kinds that lenses are compared with: all but the lenses themselves and the model."""
        return [MEAN_OUTPUT, *(kind for kind in self._kinds if kind not in (LENS, MEAN_OUTPUT, MODEL))]

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
        beside: Beside,
    ) -> None:
        self.cache, self.device, self.beside, self.judged = cache, device, beside, judged
        self.W_U_DV, self.b_U_V = (
            torch.from_numpy(cache.weights(name)).to(device) for name in ("W_U", "b_U")
        )
        self.cap = cache.plan.model.logit_cap
        self.log_mean_V = log_mean_output(lenses, cache).to(device)
        self.on_stream = lenses.record.site == RESIDUAL_STREAM
        self.means: dict[int, torch.Tensor] = {}
        self.W_O: dict[int, torch.Tensor] = {}
        if not self.on_stream:
            W_O_LHED, of_cache = cache.weights("W_O"), mean_z(cache, judged)
            for layer, heads in judged.by_layer.items():
                self.W_O[layer] = torch.from_numpy(W_O_LHED[layer, list(heads)]).to(device)
                own_HE = lenses.mean_z(layer, heads)  # None in lenses of an earlier alens
                self.means[layer] = (of_cache[layer] if own_HE is None else own_HE).to(device)
        self.stored = FinalNorm.of_cache(cache)
        self._scales = scale_columns(cache) if self.stored is not None else ()
        norm = self.stored or beside.final_norm or FinalNorm.bare(OLD_NORM, cache.plan.model.d_model)
        self.norm = norm.to(device)

        of_heads = {LENS: self._lenses(lenses), **self._of_heads(lenses)}
        of_heads |= {name: self._lenses(other) for name, other in beside.also.items()}
        of_layers = self._of_layers()
        of_all: dict[str, Baseline] = {MEAN_OUTPUT: Constant(self.log_mean_V)}
        if cache.plan.settings.exact_teacher:
            of_all[MODEL] = ModelOutput()
        self._kinds = of_heads | of_layers | of_all
        self.order = PanelKeys(judged, list(of_heads), list(of_layers), list(of_all))
        columns = (kind.columns(judged.layers) for kind in self._kinds.values())
        self.columns = list(dict.fromkeys(chain.from_iterable(columns)))

    def fit(self, some_rows: Callable[[], HeldOutPart]) -> None:
        """Fit what is fitted on rows of the judged text, across documents: the scalars of `scaled-write`."""
        scaled = self._kinds.get(SCALED_WRITE)
        if isinstance(scaled, ScaledWrite):
            scaled.fit(some_rows())

    def additions(self, values: PartValues, layer: int, place: int) -> dict[str, Addition]:
        """By the names of readings, what they say that a head adds to the logits, where they say it."""
        said = {
            name: kind.addition(values, layer, place)
            for name, kind in self._kinds.items()
            if isinstance(kind, SaysAddition)
        }
        return {name: addition for name, addition in said.items() if addition is not None}

    def _lenses(self, lenses: Lenses) -> Baseline:
        """The lenses of the judged heads; effect and Jacobian lenses add to the mean output what they say that a head adds."""
        by_layer = self.judged.by_layer
        if lenses.record.form in ADDITIONS:
            effects = load_effect_lenses(lenses.name)
            said = {layer: effects.maps(layer, heads) for layer, heads in by_layer.items()}
            return ScaledWrite(
                weights={layer: self._unembedded(map_HED) for layer, (map_HED, _) in said.items()},
                means={layer: mean_HE.to(self.device) for layer, (_, mean_HE) in said.items()},
                log_mean_V=self.log_mean_V,
                groups=self.beside.groups,
                scales=self._scales if effects.at_row else (),
                written=False,
            )
        maps = {layer: _selected(lenses, layer, heads) for layer, heads in by_layer.items()}
        return HeadMaps({layer: of_layer.to(self.device).folded() for layer, of_layer in maps.items()})

    def _unembedded(self, map_HED: torch.Tensor) -> AffineMaps:
        """Maps to the final normed residual as maps to logits, without a bias."""
        weight_HEV = torch.matmul(map_HED.to(self.W_U_DV), self.W_U_DV)
        return AffineMaps(weight_HEV=weight_HEV, bias_HV=torch.zeros_like(weight_HEV[:, 0]))

    def _of_heads(self, lenses: Lenses) -> dict[str, Baseline]:
        """Baselines of each head, with maps of their own."""
        cache, beside, made = self.cache, self.beside, dict[str, Baseline]()
        if self.on_stream:  # there, the Logit Lens is the unembedding
            made[UNEMBEDDING] = LogitLens(self.norm, self.W_U_DV, self.b_U_V, self.cap, of_site=True)
            return made
        if cache.plan.model.no_write is None and {UNEMBEDDING, WRITTEN, SCALED_WRITE} & set(beside.baselines):
            # A cache of before the last norm was kept has no row's scale: heads are unembedded without the norm there.
            bare = FinalNorm.bare(NormRecord(kind=NO_NORM, epsilon=0.0), cache.plan.model.d_model)
            unembedded = Unembedding.of_heads(
                self.W_O,
                (self.stored or bare).to(self.device),
                self.W_U_DV,
                self.b_U_V,
                scales=self._scales,
            )
            if UNEMBEDDING in beside.baselines:
                made[UNEMBEDDING] = unembedded
            for name in (WRITTEN, SCALED_WRITE):
                if name in beside.baselines:
                    made[name] = ScaledWrite(
                        weights=unembedded.maps,
                        means=self.means,
                        log_mean_V=self.log_mean_V,
                        groups=beside.groups,
                        scales=self._scales,
                    )
        if TUNED_COMPOSITION in beside.baselines:
            made[TUNED_COMPOSITION] = TunedHeads(
                self._tuned(),
                self.W_O,
                self.means,
                self._scales,
            )
        if REGRESSION in beside.baselines:
            maps = regressed_heads(cache, self.judged, beside.shards, self.W_U_DV, self.log_mean_V)
            made[REGRESSION] = HeadMaps(maps)
        return made

    def _of_layers(self) -> dict[str, Baseline]:
        """Baselines that all heads of a layer share."""
        cache, beside, made = self.cache, self.beside, dict[str, Baseline]()
        if RESIDUAL_STREAM in (cache.plan.settings.sites or ()) and not self.on_stream:
            made[LOGIT_LENS] = LogitLens(self.norm, self.W_U_DV, self.b_U_V, self.cap)
        if beside.tuned_lens is not None:
            made[TUNED_LENS] = StreamMaps(self._tuned())
        if RANDOM in beside.baselines:
            made[RANDOM] = RandomDirections.drawn(
                cache, self.judged.layers, beside.shards, self.W_U_DV, self.log_mean_V, beside.seed
            )
        return made

    def _tuned(self) -> dict[int, TranslatedMaps]:
        tuned, maps = self.beside.tuned_lens, dict[int, TranslatedMaps]()
        assert tuned is not None  # what needs one was not chosen without
        for layer in self.judged.layers:
            of_layer = tuned.read_layer(layer).maps.to(self.device)
            assert isinstance(of_layer, TranslatedMaps)  # as `evaluate` checked
            maps[layer] = of_layer
        return maps

    def readings(self, part: HeldOutPart, keys: Sequence[Key]) -> list[Readings]:
        """One for each key, for the rows of `part`."""
        values = PartValues(part)
        return [
            self._kinds[key.kind].reading(values, -1 if key.layer is None else key.layer, key.head or 0)
            for key in keys
        ]


def _selected(lenses: Lenses, layer: int, heads: Sequence[int]) -> LensMaps:
    """The maps of these heads of a layer."""
    fitted = lenses.read_layer(layer).maps
    places = [lenses.place(layer, head) for head in heads]
    return fitted if places == list(range(fitted.num_heads)) else fitted.select(places)  # selecting copies


def log_mean_output(lenses: Lenses, cache: Cache) -> torch.Tensor:
    """(V,) float32: the log of the mean output over the text of the fit; over this cache where the lenses lack it."""
    log_mean_V = lenses.log_mean_output()
    if log_mean_V is not None:
        return log_mean_V
    return torch.from_numpy(cache.log_mean_output(cache.shards))
