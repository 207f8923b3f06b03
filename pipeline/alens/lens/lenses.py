"""The lens directory: `lens.json`, one safetensors file a layer, and the mean output. No pickles.

In: the lenses of a fit. Out: a directory that is whole once `lens.json` is there (it is written last),
and from it `Lenses`: checked names, shapes and hashes, tensors loaded a layer at a time. A repository of the hub
that holds such files (`hf://OWNER/NAME`) is read alike, its files fetched when they are first read.
Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from alens.errors import DamageError, RequestError
from alens.job.progress import Report, counted, silent
from alens.lens.directory import MEAN_OUTPUT, UNEMBEDDING, layer_file, layer_metadata
from alens.lens.maps import FORMS, LayerLenses
from alens.lens.recorded_lenses import RecordedLenses
from alens.store.paths import LENS_JSON
from alens.store.schema import ATTN_Z

SUM_TOLERANCE = 1e-3
"""How far the sum of a float32 distribution may be from 1."""

SAME_W_O = 0.05
"""How far, as a share of its norm, the W_O of a lens may be from its model's: a cache in bfloat16 is 0.004 off, another
head is 1.4 off."""


class Lenses(RecordedLenses):
    """A lens directory that was opened; tensors through `layer()`, the rest as of `RecordedLenses`."""

    def __init__(self, root: Path | str) -> None:
        """Open a directory, or `hf://OWNER/NAME[@REVISION]`. Raises `RequestError` when it holds no lenses,
        `DamageError` when it is damaged."""
        super().__init__(root)
        self._layers: dict[int, LayerLenses] = {}
        self._model_W_O: torch.Tensor | None = None

    def tie(self, W_O_LHED: torch.Tensor) -> None:
        """Compare the layers that were and will be read with the output matrices of the model's heads (L, H, E, D).

        The files hold those of the fitted heads too, so weights that stand under another head's number are noticed:
        raises `DamageError`, now or when such a layer is read."""
        self._model_W_O = W_O_LHED
        for layer, lenses in self._layers.items():
            self._check_heads(layer, lenses.W_O_HED)

    def layer(self, layer: int) -> LayerLenses:
        """The lenses of a layer. Raises `RequestError` when it was not fitted, `DamageError` when altered."""
        if layer not in self.record.layers:
            raise RequestError(
                f"{self.name} has no lens for layer {layer}: it has layers {', '.join(map(str, self.record.layers))}"
            )
        if layer not in self._layers:
            self._layers[layer] = self.read_layer(layer)
        return self._layers[layer]

    def read_layer(self, layer: int) -> LayerLenses:
        """As `layer`, and not kept: for who goes through many."""
        record, model, heads = self.record, self.record.model, len(self.record.heads)
        if record.form not in FORMS:
            raise RequestError(
                f"{self.name} holds lenses of the form {record.form!r}; this alens reads {', '.join(FORMS)}"
            )
        form, on_z = FORMS[record.form], record.site == ATTN_Z
        shapes = form.shapes(heads, model.d_head if on_z else model.d_model, model.d_model, model.d_vocab)
        if on_z:
            shapes["W_O"] = (heads, model.d_head, model.d_model)
        tensors = self._load(layer_file(layer), shapes, told=layer_metadata(layer, record.heads))
        self._check_heads(layer, tensors.get("W_O"))
        return LayerLenses(
            maps=form.from_tensors(tensors, self._unembedding, model.final_norm), W_O_HED=tensors.get("W_O")
        )

    def _check_heads(self, layer: int, W_O_HED: torch.Tensor | None) -> None:
        """Raises `DamageError` where `tie` was told other output matrices of these heads."""
        if self._model_W_O is None or W_O_HED is None:
            return
        for head, W_O_ED in zip(self.record.heads, W_O_HED, strict=True):
            expected_ED = self._model_W_O[layer, head].to("cpu", torch.float32)
            if not float((W_O_ED - expected_ED).norm()) <= SAME_W_O * float(expected_ED.norm()):
                raise DamageError(
                    f"{self.root / layer_file(layer)} holds a W_O that is not that of head {layer}.{head}, whose lens it is by "
                    f"{LENS_JSON}: {self._mend(LENS_JSON)}"
                )

    def _unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.record.model
        found = self._load(UNEMBEDDING, {"W_U": (model.d_model, model.d_vocab), "b_U": (model.d_vocab,)})
        return found["W_U"], found["b_U"]

    def head_index(self, head: int) -> int:
        """Where `head` is on the first axis. Raises `RequestError` when it was not fitted."""
        if head not in self.record.heads:
            raise RequestError(
                f"{self.name} has no lens for head {head}: it has heads {', '.join(map(str, self.record.heads))}"
            )
        return self.record.heads.index(head)

    def chosen(
        self, layers: Sequence[int] | None, heads: Sequence[int] | None, report: Report = silent
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Layers and heads to read, default all, each once; opens the layers. Raises `RequestError` for what was not
        fitted, or for none at all, `DamageError`."""
        layers = tuple(dict.fromkeys(self.record.layers if layers is None else layers))
        heads = tuple(dict.fromkeys(self.record.heads if heads is None else heads))
        for named, what in ((layers, "layers"), (heads, "heads")):
            if not named:
                raise RequestError(f"{what} is empty: name one or more, or leave it out for all")
        for layer in counted(layers, report, "reading lenses", "layers"):
            self.layer(layer)
        for head in heads:
            self.head_index(head)
        return layers, heads

    def log_mean_output(self) -> torch.Tensor | None:
        """(V,) float32: the log of the model's mean output over the training text; None where nobody says it."""
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
        self, name: str, shapes: Mapping[str, tuple[int, ...]], told: Mapping[str, str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Checked float32 tensors; `told` is what the file must say of itself, where it says anything."""
        path = self.check_file(name)
        try:
            with safe_open(path, framework="pt") as file:
                says = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in shapes if key in file.keys()}  # noqa: SIM118  # no dict
        except SafetensorError as error:
            raise DamageError(f"{path} is no safetensors file ({error}): {self._mend(name)}") from None
        for key, value in (told or {}).items():
            if says.get(key, value) != value:
                raise DamageError(
                    f"{path} holds {key} of {says[key]}, {LENS_JSON} says {value}: {self._mend(name)}"
                )
        for key, shape in shapes.items():
            if key not in tensors or tuple(tensors[key].shape) != shape:
                found = tuple(tensors[key].shape) if key in tensors else "nothing"
                raise DamageError(f"{path} has {found} for {key}, lens.json says {shape}: {self._mend(name)}")
            _check_numbers(path, key, tensors[key], self._mend(name))
        return tensors


def _check_numbers(path: Path, key: str, tensor: torch.Tensor, mend: str) -> None:
    """Raises `DamageError` for another dtype than float32 and for what is not finite."""
    if tensor.dtype != torch.float32:
        what = str(tensor.dtype).removeprefix("torch.")
        raise DamageError(f"{path} has {key} as {what}, and lenses are float32: {mend}")
    if not bool(torch.isfinite(tensor).all()):
        raise DamageError(f"{path} has numbers in {key} that are not finite: {mend}")


def load_lenses(path: Path | str) -> Lenses:
    """Open a lens directory that `alens fit` wrote, or lenses that `alens publish` put on the hub:
    `hf://OWNER/NAME[@REVISION]`."""
    return Lenses(path)
