"""The lens directory: `lens.json`, one safetensors file a layer, and the mean output. No pickles.

In: the lenses of a fit. Out: a directory that is whole once `lens.json` is there (it is written last),
and from it `Lenses`: checked names, shapes and hashes, tensors loaded a layer at a time. A repository of the hub
that holds such files (`hf://OWNER/NAME`) is read alike, its files fetched when they are first read.
Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from alens.errors import DamageError, RequestError
from alens.lens.maps import FORMS, AffineMaps, LensMaps
from alens.lens.record import LensFolder
from alens.store import durable
from alens.store.schema import ATTN_Z

OUTPUT = "output.safetensors"
UNEMBEDDING = "unembedding.safetensors"
"""`W_U` and `b_U`: only beside maps that end in them."""


def layer_file(layer: int) -> str:
    """The name of a layer's file in a lens directory."""
    return f"layer-{layer:02d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class LayerLenses:
    """The lenses of one layer's heads."""

    maps: LensMaps
    W_O_HED: torch.Tensor | None
    """The heads' output matrices, so that a lens can be written on head outputs: pinv(W_O) weight. None for a
    site of the residual stream."""

    @property
    def weight_HEV(self) -> torch.Tensor:
        """Of logits = z weight + bias. Raises `RequestError` for lenses that are not affine."""
        return self._affine().weight_HEV

    @property
    def bias_HV(self) -> torch.Tensor:
        """Of logits = z weight + bias. Raises `RequestError` for lenses that are not affine."""
        return self._affine().bias_HV

    def _affine(self) -> AffineMaps:
        if not isinstance(self.maps, AffineMaps):
            raise RequestError(
                f"lenses of the form {self.maps.form!r} have no weight and bias: use their logits"
            )
        return self.maps

    def logits(self, z_NHE: torch.Tensor) -> torch.Tensor:
        """(N, H, V) float32 logits of each head's reading."""
        return torch.stack([self.maps.logits(h, z_NHE[:, h]) for h in range(self.maps.num_heads)], dim=1)


class Lenses(LensFolder):
    """A lens directory that was opened; tensors through `layer()`, the rest as of `LensFolder`."""

    def __init__(self, root: Path | str) -> None:
        """Open a directory, or `hf://OWNER/NAME[@REVISION]`. Raises `RequestError` when it holds no lenses,
        `DamageError` when it is damaged."""
        super().__init__(root)
        self._layers: dict[int, LayerLenses] = {}

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
        tensors = self._load(layer_file(layer), shapes)
        return LayerLenses(maps=form.from_tensors(tensors, self._unembedding), W_O_HED=tensors.get("W_O"))

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
        self, layers: Sequence[int] | None, heads: Sequence[int] | None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Layers and heads to read, default all, each once; opens the layers. Raises `RequestError` for what was not
        fitted, or for none at all, `DamageError`."""
        layers = tuple(dict.fromkeys(self.record.layers if layers is None else layers))
        heads = tuple(dict.fromkeys(self.record.heads if heads is None else heads))
        for named, what in ((layers, "layers"), (heads, "heads")):
            if not named:
                raise RequestError(f"{what} is empty: name one or more, or leave it out for all")
        for layer in layers:
            self.layer(layer)
        for head in heads:
            self.head_index(head)
        return layers, heads

    def log_mean_output(self) -> torch.Tensor | None:
        """(V,) float32: the log of the model's mean output over the training text; None where nobody says it."""
        if OUTPUT not in self.record.files:
            return None
        return self._load(OUTPUT, {"log_mean_output": (self.record.model.d_vocab,)})["log_mean_output"]

    def _load(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        path = self.check_file(name)
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise DamageError(f"{path} is no safetensors file: {error}") from None
        for key, shape in shapes.items():
            if key not in tensors or tuple(tensors[key].shape) != shape:
                found = tuple(tensors[key].shape) if key in tensors else "nothing"
                raise DamageError(f"{path} has {found} for {key}, lens.json says {shape}")
        return tensors


def load_lenses(path: Path | str) -> Lenses:
    """Open a lens directory that `alens fit` wrote, or lenses that `alens publish` put on the hub:
    `hf://OWNER/NAME[@REVISION]`."""
    return Lenses(path)


def put_tensors(root: Path, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write one safetensors file durably; gives its size and hash for the record."""
    blob = save({key: value.detach().float().cpu().contiguous() for key, value in tensors.items()})
    durable.put(root / name, blob)
    return {"bytes": len(blob), "sha256": durable.sha256_of(root / name)}
