"""Lenses that are opened to be used: their tensors, checked, a layer at a time. No pickles.

In: a lens directory, or a repository of the hub that holds its files (`hf://OWNER/NAME`), which are fetched when they
are first read. Out: `Lenses`, which gives the maps of each layer and the mean output. Names, shapes, hashes and numbers
are compared with `lens.json`.
Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from alens.errors import DamageError, RequestError
from alens.heads import Heads
from alens.job.progress import Report, counted, silent
from alens.lens.directory import MEAN_OUTPUT, UNEMBEDDING, layer_file, layer_metadata
from alens.lens.lens_forms import FORMS
from alens.lens.maps import MEAN_Z, LayerLenses, LensEnding, Shared
from alens.lens.record import ADDITIONS
from alens.lens.recorded_lenses import RecordedLenses
from alens.store.paths import LENS_JSON
from alens.store.schema import ATTN_Z

SUM_TOLERANCE = 1e-3
"""How far the sum of a float32 distribution may be from 1."""

SAME_W_O = 0.05
"""How far the W_O of a lens may be from that of its model, as a share of its norm: a cache in bfloat16 is 0.004 off,
another head is 1.4 off."""


class Lenses(RecordedLenses):
    """The lenses of a directory or repository; `layer()` gives their tensors."""

    def __init__(self, root: Path | str) -> None:
        """Open a directory, or `hf://OWNER/NAME[@REVISION]`.

        Raises `RequestError` when it holds no lenses, `DamageError` when it is damaged.
        """
        super().__init__(root)
        self._layers: dict[int, LayerLenses] = {}
        self._mean_z: dict[int, torch.Tensor | None] = {}
        self._model_W_O: torch.Tensor | None = None

    def __repr__(self) -> str:
        return f"<Lenses {self.name}: {self.record.headline()}>"

    def tie(self, W_O_LHED: torch.Tensor) -> None:
        """Compare W_O of every layer that was or will be read with that of the model's heads, (L, H, E, D).

        The files hold the W_O of each fitted head, so a lens under another head's number is noticed: raises
        `DamageError`, now or when such a layer is read.
        """
        self._model_W_O = W_O_LHED
        for layer, lenses in self._layers.items():
            self._check_heads(layer, lenses.W_O_HED)

    def layer(self, layer: int) -> LayerLenses:
        """The lenses of a layer. Raises `RequestError` when it was not fitted, `DamageError` when it was altered."""
        self.check_layer(layer)
        if layer not in self._layers:
            self._layers[layer] = self.read_layer(layer)
        return self._layers[layer]

    def read_layer(self, layer: int) -> LayerLenses:
        """The same as `layer`, but not kept in memory: for a caller that goes through many layers."""
        record, model, fitted = self.record, self.record.model, self.record.lenses.by_layer[layer]
        heads = len(fitted)
        if record.form in ADDITIONS:
            raise RequestError(
                f"{self.name} holds {record.form} lenses, which say what a head adds to the logits and not what it knows: give "
                "them to `alens read LENSES --effect`"
            )
        if record.form not in FORMS:
            raise RequestError(
                f"{self.name} holds lenses of the form {record.form!r}; this alens reads {', '.join(FORMS)}"
            )
        form, on_z = FORMS[record.form], record.site == ATTN_Z
        shapes = form.shapes(heads, model.d_head if on_z else model.d_model, model.d_model, model.d_vocab)
        if on_z:
            shapes["W_O"] = (heads, model.d_head, model.d_model)
        tensors = self._load(
            layer_file(layer),
            shapes,
            metadata=layer_metadata(layer, fitted),
            halves=form.halves,
            optional={MEAN_Z: (heads, model.d_head)} if on_z else {},
        )
        self._check_heads(layer, tensors.get("W_O"))
        return LayerLenses(
            maps=form.from_tensors(tensors, self._shared),
            W_O_HED=tensors.get("W_O"),
            mean_z_HE=tensors.get(MEAN_Z),
        )

    def mean_z(self, layer: int, heads: Sequence[int] | None = None) -> torch.Tensor | None:
        """(H, E) float32: E[z] over the cache of these heads, by default all that were fitted in the layer.

        None where the files do not hold it: they are of an earlier alens, or were made without a cache. Raises like
        `layer`, and `RequestError` for a head that was not fitted.
        """
        self.check_layer(layer)
        if layer not in self._mean_z:
            self._mean_z[layer] = self._read_mean_z(layer)
        mean_HE = self._mean_z[layer]
        if mean_HE is None or heads is None:
            return mean_HE
        return mean_HE[[self.place(layer, head) for head in heads]]

    def _read_mean_z(self, layer: int) -> torch.Tensor | None:
        """E[z] of a layer, without its maps where these are not in memory."""
        if layer in self._layers:
            return self._layers[layer].mean_z_HE
        if self.record.site != ATTN_Z:
            return None
        shape = len(self.record.lenses.by_layer[layer]), self.record.model.d_head
        return self._load(layer_file(layer), {}, optional={MEAN_Z: shape}).get(MEAN_Z)

    def _check_heads(self, layer: int, W_O_HED: torch.Tensor | None) -> None:
        """Raises `DamageError` where `tie` was given other output matrices for these heads."""
        if self._model_W_O is None or W_O_HED is None:
            return
        for head, W_O_ED in zip(self.record.lenses.by_layer[layer], W_O_HED, strict=True):
            expected_ED = self._model_W_O[layer, head].to("cpu", torch.float32)
            if not float((W_O_ED - expected_ED).norm()) <= SAME_W_O * float(expected_ED.norm()):
                raise DamageError(
                    f"{self.root / layer_file(layer)} holds a W_O that is not that of head {layer}.{head}, whose lens it is by "
                    f"{LENS_JSON}: {self._mend(LENS_JSON)}"
                )

    @cached_property
    def _shared(self) -> Shared:
        return Shared(
            unembedding=lambda: self._unembedding,
            ending=lambda: self._ending,
            norm=self.record.model.final_norm,
        )

    @cached_property
    def _unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.record.model
        tensors = self._load(UNEMBEDDING, {"W_U": (model.d_model, model.d_vocab), "b_U": (model.d_vocab,)})
        return tensors["W_U"], tensors["b_U"]

    @cached_property
    def _ending(self) -> LensEnding:
        model, log_mean_V = self.record.model, self.log_mean_output()
        if log_mean_V is None:
            raise DamageError(
                f"{self.root / LENS_JSON} does not name {MEAN_OUTPUT}, which these lenses need: {self._mend(LENS_JSON)}"
            )
        W_U_DV = self._load(UNEMBEDDING, {"W_U": (model.d_model, model.d_vocab)}, halves=("W_U",))["W_U"]
        return LensEnding.with_mean_output(W_U_DV, log_mean_V)

    def chosen(self, layers: Any, heads: Any, report: Report = silent) -> Heads:
        """The heads to read, as `choose` gives them; opens their layers. Raises `DamageError` for a damaged one."""
        chosen = self.choose(layers, heads)
        for layer in counted(chosen.layers, report, "reading lenses", "layers"):
            self.layer(layer)
        return chosen

    def log_mean_output(self) -> torch.Tensor | None:
        """(V,) float32: the log of the model's mean output over the training text; None where it is not known."""
        if MEAN_OUTPUT not in self.record.files:
            return None
        shapes = {"log_mean_output": (self.record.model.d_vocab,)}
        log_mean_V = self._load(MEAN_OUTPUT, shapes)["log_mean_output"]
        total = float(log_mean_V.double().exp().sum())
        if not abs(total - 1.0) <= SUM_TOLERANCE:
            raise DamageError(
                f"{self.root / MEAN_OUTPUT} has a mean output that sums to {total:.3f}, not 1: {self._mend(MEAN_OUTPUT)}"
            )
        return log_mean_V

    def _load(
        self,
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        metadata: Mapping[str, str] | None = None,
        halves: Collection[str] = (),
        optional: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Checked tensors, as float32. `metadata` is what the file must say about itself, where it says anything;
        `halves` are the tensors that may be float16 in the file, `optional` those that may be missing."""
        path = self.check_file(name)
        try:
            with safe_open(path, framework="pt") as file:
                in_file = file.metadata() or {}
                keys = set(file.keys())
                shapes = {**shapes, **{key: shape for key, shape in (optional or {}).items() if key in keys}}
                tensors = {key: file.get_tensor(key) for key in shapes if key in keys}
        except SafetensorError as error:
            raise DamageError(f"{path} is not a safetensors file ({error}): {self._mend(name)}") from None
        for key, value in (metadata or {}).items():
            if in_file.get(key, value) != value:
                raise DamageError(
                    f"{path} holds {key} of {in_file[key]}, {LENS_JSON} says {value}: {self._mend(name)}"
                )
        for key, shape in shapes.items():
            if key not in tensors or tuple(tensors[key].shape) != shape:
                stored = tuple(tensors[key].shape) if key in tensors else "nothing"
                raise DamageError(
                    f"{path} has {stored} for {key}, lens.json says {shape}: {self._mend(name)}"
                )
            dtypes = (torch.float32, torch.float16) if key in halves else (torch.float32,)
            _check_numbers(path, key, tensors[key], dtypes, self._mend(name))
        return {key: tensor.float() for key, tensor in tensors.items()}


def _check_numbers(
    path: Path, key: str, tensor: torch.Tensor, dtypes: Sequence[torch.dtype], mend: str
) -> None:
    """Raises `DamageError` for a dtype that is not one of `dtypes`, and for numbers that are not finite."""
    if tensor.dtype not in dtypes:
        what, allowed = _name(tensor.dtype), " or ".join(map(_name, dtypes))
        raise DamageError(f"{path} has {key} as {what}, and lenses are {allowed}: {mend}")
    if not bool(torch.isfinite(tensor).all()):
        raise DamageError(f"{path} has numbers in {key} that are not finite: {mend}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_lenses(path: Path | str) -> Lenses:
    """Open a lens directory that `alens fit` wrote, or lenses that `alens publish` put on the hub:
    `hf://OWNER/NAME[@REVISION]`."""
    return Lenses(path)


def opened_lenses(lenses: Any) -> Lenses:
    """Lenses that were given open, or by their directory or address. Raises `RequestError` for anything else."""
    if isinstance(lenses, Lenses):
        return lenses
    if isinstance(lenses, str | Path):
        return load_lenses(lenses)
    raise RequestError(
        f"lenses is a {type(lenses).__name__}: give a lens directory, hf://OWNER/NAME, or what load_lenses gave"
    )
