"""Directories of the tuned-lens package (github.com/AlignmentResearch/tuned-lens; arXiv 2303.08112).

In: `config.json` and `params.pt`. Out: `PublishedLenses` with translated maps on `resid_post`. Translator i has
`i.weight` (D, D) and `i.bias` (D), and reads `hidden_states[i]`, the input of block i. That is the output of block
i - 1, so translator i becomes the lens of layer i - 1; translator 0 reads the embedding, which no cache holds, and is
left out. logits = unembed(norm(h + h W^T + b)); norm and unembedding are the model's own and come from the model.
Shapes: D d_model, V vocabulary.
"""

from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.exchange.published import PublishedLenses
from alens.exchange.request import ImportRequest
from alens.exchange.weights_only import instead, load_weights
from alens.heads import Heads
from alens.lens.maps import TranslatedMaps
from alens.model.models import LoadedModel
from alens.store import document
from alens.store.model_record import ModelRecord
from alens.store.schema import RESIDUAL_STREAM

CONFIG, PARAMS = "config.json", "params.pt"
LENS_TYPE = "linear_tuned_lens"


def recognises(source: Path) -> bool:
    """Whether `source` looks like such a directory."""
    return (source / PARAMS).is_file() or "num_hidden_layers" in config(source)


def config(source: Path) -> dict[str, Any]:
    """What `config.json` says; empty where there is none. Raises `DamageError` when it is not whole."""
    try:
        return document.plain(source / CONFIG, "fetch it again")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RequestError(f"cannot read {source / CONFIG}: {error.strerror}") from None


def read(request: ImportRequest, model: LoadedModel) -> PublishedLenses:
    """The lenses of `request.source`. Raises `RequestError` for lenses of another kind or model."""
    source, record = request.source, model.source.record
    settings = config(source)
    _check_config(source, settings, record)
    state = load_weights(source / PARAMS)
    last = record.n_layers - 1
    if request.layer is not None and not 0 <= request.layer < last:
        raise RequestError(
            f"{source} has no lens for layer {request.layer}: translators 1 to {last} read what layers 0 to {last - 1} leave"
        )
    layers = tuple(range(last)) if request.layer is None else (request.layer,)
    norm = model.final_norm
    if norm is None:
        raise RequestError(
            f"the last norm of {record.id} is neither a layer norm nor an RMS norm: alens reads no tuned lens of it"
        )
    gain_D, offset_D = norm.gain_D.cpu(), norm.offset_D.cpu()
    for layer in layers:
        _translator(source / PARAMS, state, layer, record.d_model)

    def maps(layer: int) -> TranslatedMaps:
        weight_DD, bias_D = _translator(source / PARAMS, state, layer, record.d_model)
        return TranslatedMaps(
            translator_HED=(torch.eye(record.d_model) + weight_DD.T)[None],
            shift_HD=bias_D[None],
            gain_HD=gain_D[None],
            offset_HD=offset_D[None],
            W_U_DV=model.W_U_DV.cpu().float(),
            b_U_V=model.b_U_V.cpu().float(),
            norm=norm.record,
        )

    return PublishedLenses(
        program="tuned-lens",
        site=RESIDUAL_STREAM,
        form=TranslatedMaps.form,
        heads=Heads.grid(layers, (0,)),
        maps=maps,
        notes={
            "config": settings,
            "translators": "translator i is the lens of layer i - 1; translator 0 is left out",
        },
    )


def _check_config(source: Path, settings: dict[str, Any], record: ModelRecord) -> None:
    """Raises `RequestError` unless `config.json` says a linear tuned lens of a model of these sizes."""
    if settings.get("lens_type", LENS_TYPE) != LENS_TYPE:
        raise RequestError(
            f"{source / CONFIG} says lens_type {settings['lens_type']!r}: alens reads {LENS_TYPE}"
        )
    for key, ours in (("d_model", record.d_model), ("num_hidden_layers", record.n_layers)):
        if settings.get(key) != ours:
            raise RequestError(
                f"{source / CONFIG} says {key} {settings.get(key)}, and {record.id} has {ours}: give the model the lens was tuned for"
            )
    if record.n_layers < 2:
        raise RequestError(
            f"{source} is of a model of one layer: its one translator reads the embedding, which no lens of alens does"
        )


def _translator(
    path: Path, state: dict[str, Any], layer: int, d_model: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(D, D) weight and (D) bias of the translator that reads the output of `layer`; zeros for a lens without biases."""
    tensors = []
    for name, shape in (("weight", (d_model, d_model)), ("bias", (d_model,))):
        key = f"{layer + 1}.{name}"
        tensor: Any = state.get(key, torch.zeros(shape) if name == "bias" else None)
        if (there := instead(tensor, shape)) is not None:
            raise RequestError(
                f"{path} has {there} for {key}, and needs {shape}: it is not a tuned lens of this model"
            )
        tensors.append(tensor.float())
    return tensors[0], tensors[1]
