"""Directories that `alens export` wrote, in both forms.

In: `config.json` and a safetensors file for each layer. Out: `PublishedLenses` with affine maps on the site's values.
The paper's form is turned back by W_O pinv(W_O) W = W, which is the exported lens, to rounding.
Shapes: H heads, E width of the site's values, D d_model, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from alens.errors import DamageError, RequestError
from alens.exchange import export
from alens.exchange.published import PublishedLenses
from alens.exchange.request import ImportRequest
from alens.exchange.tuned_lens import config
from alens.heads import Heads
from alens.lens.directory import MEAN_OUTPUT, layer_file
from alens.lens.maps import AffineMaps
from alens.model.models import LoadedModel
from alens.store import durable, same_model, typed
from alens.store.model_record import ModelRecord
from alens.store.records import FileRecord
from alens.store.schema import ATTN_Z, FURTHER_SITES
from alens.store.typed import MOST, OPEN, Natural


@dataclass(frozen=True, kw_only=True)
class _ExportConfig:
    """The fields of `config.json` that are read."""

    __pydantic_config__ = OPEN

    form: str
    dtype: str
    site: str
    layers: tuple[Natural, ...]
    heads: tuple[Natural, ...] | dict[str, tuple[Natural, ...]]
    model: ModelRecord
    design: str
    objective: str | None
    fit: dict[str, Any]
    cache: dict[str, Any]
    held_out: dict[str, Any]
    files: dict[str, FileRecord]
    tokenizer_sha256: str | None = None
    bos: Natural | None = None
    mean_output_kl: float | None = None

    def __post_init__(self) -> None:
        """Raises `TypeError` for values that cannot be: the file may come from anywhere."""
        num_heads = self.model.n_heads if self.site == ATTN_Z else 1
        by_layer = list(self.heads.values()) if isinstance(self.heads, dict) else [self.heads]
        for name, numbers, most in (
            ("layers", self.layers, self.model.n_layers),
            *(("heads", numbers, num_heads) for numbers in by_layer),
        ):
            if not 0 < len(set(numbers)) == len(numbers) or max(numbers) >= most:
                raise TypeError(f"{name} is {str(list(numbers))[:60]}, of {most}, each once")
        _ = self.lenses
        if self.form not in export.FORMS or self.site not in (ATTN_Z, *FURTHER_SITES):
            raise TypeError(
                f"form is {self.form[:60]!r} and site is {self.site[:60]!r}, which alens does not export"
            )
        first = self.fit.get("min_position")
        if type(first) is not int or not 0 <= first <= MOST:
            raise TypeError(
                f"fit.min_position is {str(first)[:60]}: input should be a whole number from 0 on"
            )

    @cached_property
    def lenses(self) -> Heads:
        """The heads that have lenses."""
        return Heads.from_json(self.layers, self.heads)


def recognises(source: Path) -> bool:
    """Whether `source` is such a directory."""
    return config(source).get("format") == export.FORMAT_NAME


def read(request: ImportRequest, model: LoadedModel) -> PublishedLenses:
    """The lenses of `request.source`. Raises `RequestError` for another model's, `DamageError` for an altered file."""
    source, record = request.source, model.source.record
    exported = typed.parse(
        _ExportConfig, export.read_config(source), str(source / export.CONFIG), "fetch it again"
    )
    _check_model(source, exported, model)
    if request.layer is not None and request.layer not in exported.layers:
        raise RequestError(
            f"{source} has no lens for layer {request.layer}: it has layers {', '.join(map(str, exported.layers))}"
        )
    layers = exported.layers if request.layer is None else (request.layer,)
    for layer in layers:
        _check_file(source / layer_file(layer), exported.files)

    def maps(layer: int) -> AffineMaps:
        W_O_HED = model.W_O_LHED[layer].cpu().float() if exported.form == export.PAPER else None
        width = record.d_head if exported.site == ATTN_Z and exported.form != export.PAPER else record.d_model
        weights, biases = [], []
        for head in exported.lenses.by_layer[layer]:
            weight, bias_V = _head(source / layer_file(layer), head, (width, record.d_vocab))
            weights.append(weight if W_O_HED is None else W_O_HED[head] @ weight)
            biases.append(bias_V)
        return AffineMaps(weight_HEV=torch.stack(weights), bias_HV=torch.stack(biases))

    return PublishedLenses(
        program="alens",
        site=exported.site,
        form=AffineMaps.form,
        heads=exported.lenses.within(layers),
        maps=maps,
        notes={
            "form": exported.form,
            "dtype": exported.dtype,
            "design": exported.design,
            "fit": exported.fit,
        },
        objective=exported.objective,
        cache=exported.cache,
        min_position=exported.fit["min_position"],
        bos=exported.bos,
        held_out={key: exported.held_out[key] for key in map(str, layers) if key in exported.held_out},
        mean_output_kl=exported.mean_output_kl,
        log_mean_output_V=_mean_output(source, exported.files, record.d_vocab),
        mean_z=lambda layer: _mean_z(source, exported, layer, record.d_head),
    )


def _check_model(source: Path, exported: _ExportConfig, model: LoadedModel) -> None:
    """Raises `RequestError` unless the lenses are of this model and its tokenizer."""
    record = model.source.record
    if (phrase := same_model.difference(exported.model, record)) is not None:
        raise RequestError(
            f"{source} holds lenses of {exported.model.id}, and {record.id} has {phrase}: say with --model where it is"
        )
    if exported.tokenizer_sha256 not in (None, model.source.tokenizer_sha256):
        raise RequestError(
            f"{source} holds lenses of another tokenizer than that of {record.id}: say with --model where theirs is"
        )


def _check_file(path: Path, files: Mapping[str, FileRecord]) -> None:
    """Raises `DamageError` unless the file is there with the hash that `config.json` gives."""
    if path.name not in files or not path.is_file():
        raise DamageError(f"{path} is missing: fetch it again, or choose another layer with --layer")
    if durable.sha256_of(path) != files[path.name].sha256:
        raise DamageError(f"{path} was altered since it was written: fetch it again")


def _tensor(path: Path, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    try:
        with safe_open(path, framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name).float()
    except (SafetensorError, RuntimeError) as error:  # torch cannot make float32 of every dtype
        raise DamageError(f"{path} has no tensor {name} ({error}): fetch it again") from None
    if tuple(tensor.shape) != shape:
        raise DamageError(
            f"{path} has {tuple(tensor.shape)} for {name}, config.json says {shape}: fetch it again"
        )
    return tensor


def _head(path: Path, head: int, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    names = export.tensor_names(head)
    return _tensor(path, names[0], shape), _tensor(path, names[1], shape[1:])


def _mean_output(source: Path, files: Mapping[str, FileRecord], d_vocab: int) -> torch.Tensor | None:
    if MEAN_OUTPUT not in files:
        return None
    _check_file(source / MEAN_OUTPUT, files)
    return _tensor(source / MEAN_OUTPUT, "log_mean_output", (d_vocab,))


def _mean_z(source: Path, exported: _ExportConfig, layer: int, d_head: int) -> torch.Tensor | None:
    """(H, E): E[z] of the heads of a layer; None for an export that does not hold it."""
    if export.MEAN_Z_FILE not in exported.files:
        return None
    path = source / export.MEAN_Z_FILE
    _check_file(path, exported.files)
    return _tensor(path, export.mean_z_name(layer), (len(exported.lenses.by_layer[layer]), d_head))
