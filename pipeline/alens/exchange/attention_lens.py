"""Checkpoints of the published AttentionLens (github.com/msakarvadia/AttentionLens; arXiv 2310.16270).

In: a PyTorch Lightning `.ckpt` or a state dict of one layer, or a directory of them. Out: `PublishedLenses` with affine
maps on z. LensA has for each head an `nn.Linear(d_model, d_vocab)` on the head's output a = z W_O, so on z the lens is
`W_O weight^T`, exactly. Keys: `attn_lens.linears.{head}.weight` (V, D) and `.bias` (V), in earlier versions
`attn_lens.lenses.0.linears...`. Heads have the model's numbers; only the file's name says which layer it is
(`attnlens-layer-9-epoch=...`).

The early code took head outputs from TransformerLens' `from_pretrained`, which processes weights: the value bias
moves behind the attention (z' = z - b), and W_O is centred over D. Later code took them from the plain model. Lenses
of processed weights are turned back exactly: z' W_O' weight^T = z (W_O' weight^T) - b W_O' weight^T.
Shapes: H heads, E d_head, D d_model, V vocabulary.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.exchange.published import PublishedLenses
from alens.exchange.request import ImportRequest
from alens.exchange.weights_only import instead, is_whole, load_weights
from alens.heads import Heads
from alens.lens.maps import AffineMaps
from alens.model.models import LoadedModel
from alens.store.model_record import ModelRecord
from alens.store.schema import ATTN_Z

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")

TRAINING = (
    "LensA: the readings of a layer's heads are summed before the loss, KL(model, lens) at the last position of a "
    "right-padded sentence (every position in early versions), Adam, from the unembedding; read alone, a head's lens "
    "says its part of the sum"
)
_KEY = re.compile(r"(?:attn_lens\.)?(?:lenses\.(\d+)\.)?linears\.(\d+)\.(weight|bias)")
_LAYER = re.compile(r"layer[-_=]?(\d+)")

Linears = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Head -> weight (V, D) and bias (V) on the head's output."""


def recognises(source: Path) -> bool:
    """Whether `source` looks like such a checkpoint, or a directory of them."""
    return bool(_checkpoints(source))


def read(request: ImportRequest, model: LoadedModel) -> PublishedLenses:
    """The lenses of `request.source`. Raises `RequestError` for another kind of file, or lenses of another model."""
    record = model.source.record
    paths = _by_layer(request.source, request.layer)
    linears, weights = {}, {}
    for layer, path in paths.items():
        linears[layer], keys = _open(path, model)
        weights[layer] = _model_weights(request.weights, keys)
    for layer in paths:
        if not 0 <= layer < record.n_layers:
            raise RequestError(
                f"layer {layer} does not exist: {record.id} has layers 0 to {record.n_layers - 1}"
            )

    def maps(layer: int) -> AffineMaps:
        to_z = _from_processed if weights[layer] == "processed" else _from_raw
        return to_z(linears[layer], model, layer)

    return PublishedLenses(
        program="attention-lens",
        site=ATTN_Z,
        form=AffineMaps.form,
        heads=Heads.grid(sorted(paths), range(record.n_heads)),
        maps=maps,
        notes={
            "files": {str(layer): path.name for layer, path in sorted(paths.items())},
            "model_weights": {str(layer): weights[layer] for layer in sorted(weights)},
            "training": TRAINING,
        },
    )


def _checkpoints(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix in SUFFIXES)
    return [source] if source.suffix in SUFFIXES else []


def _by_layer(source: Path, layer: int | None) -> dict[int, Path]:
    """The file of each layer, by its name; `--layer` says it for one file whose name does not."""
    paths: dict[int, Path] = {}
    for path in _checkpoints(source):
        in_name = _LAYER.search(path.stem)
        number = int(in_name[1]) if in_name else layer
        if number is None:
            raise RequestError(f"the name of {path} does not say its layer: give it with --layer")
        if layer is not None and number != layer:
            if source.is_dir():
                continue
            raise RequestError(
                f"the name of {path} says layer {number}, and --layer {layer}: leave --layer out"
            )
        if number in paths:
            raise RequestError(f"{paths[number]} and {path} both hold layer {number}: name one of them")
        paths[number] = path
    if not paths:
        raise RequestError(f"{source} has no checkpoint of layer {layer}: look at the names of its files")
    return paths


def _open(path: Path, model: LoadedModel) -> tuple[Linears, list[str]]:
    """The checked linear maps of a file by head, and all of its keys."""
    body = load_weights(path)
    state = body.get("state_dict", body)
    if not isinstance(state, dict):
        raise RequestError(
            f"{path} has a state_dict that is not a dictionary: give the checkpoint as it was saved"
        )
    keys, by_head = [str(key) for key in state], dict[int, dict[str, Any]]()
    for key in keys:
        if matched := _KEY.fullmatch(key):
            if matched[1] not in (None, "0"):
                raise RequestError(
                    f"{path} holds lenses of several layers ({key}): give one file for each layer"
                )
            by_head.setdefault(int(matched[2]), {})[matched[3]] = state[key]
    _check_linears(path, by_head, model.source.record)
    _check_unembedding(path, state, model)
    return {head: (tensors["weight"], tensors["bias"]) for head, tensors in by_head.items()}, keys


def _check_linears(path: Path, by_head: Mapping[int, Mapping[str, Any]], record: ModelRecord) -> None:
    """Raises `RequestError` unless there is a weight and a bias of the model's shapes for each of its heads."""
    if sorted(by_head) != list(range(record.n_heads)):
        what = f"lenses of {len(by_head)} heads" if by_head else "no attn_lens.linears.0.weight"
        raise RequestError(
            f"{path} has {what}, and {record.id} {record.n_heads} heads a layer: it is not an AttentionLens checkpoint of this model"
        )
    shapes = {"weight": (record.d_vocab, record.d_model), "bias": (record.d_vocab,)}
    for head, tensors in by_head.items():
        for name, shape in shapes.items():
            if (there := instead(tensors.get(name), shape)) is not None:
                raise RequestError(
                    f"{path} has {there} for linears.{head}.{name}, and {record.id} needs {shape}: it is of another model, or not whole"
                )


def _check_unembedding(path: Path, state: Mapping[str, Any], model: LoadedModel) -> None:
    """Raises `RequestError` where a training checkpoint, which also holds the model, holds another one."""
    held = state.get("model.lm_head.weight")
    ours_VD = model.W_U_DV.T.cpu().float()
    if isinstance(held, torch.Tensor) and not (
        held.shape == ours_VD.shape
        and is_whole(held)
        and torch.allclose(held.float(), ours_VD, rtol=1e-2, atol=1e-3)
    ):
        raise RequestError(
            f"{path} holds another model than {model.source.record.id}: its unembedding differs; say with --model which it was"
        )


def _model_weights(asked: str, keys: list[str]) -> str:
    """`raw` or `processed`: which weights of the model the head outputs came from."""
    if asked != "auto":
        return asked
    # Only the early code named its lenses `lenses.0`, and only TransformerLens names blocks `blocks.0.attn`.
    early = any(re.search(r"lenses\.0\.linears|\bblocks\.\d+\.attn\.", key) for key in keys)
    return "processed" if early else "raw"


def _from_raw(linears: Linears, model: LoadedModel, layer: int) -> AffineMaps:
    W_O_HED = model.plain_W_O_LHED[layer].cpu().float()
    return _on_z(linears, W_O_HED, None)


def _from_processed(linears: Linears, model: LoadedModel, layer: int) -> AffineMaps:
    bridge = model.bridge
    W_O_HED = model.plain_W_O_LHED[layer].cpu().float()
    centred_HED = W_O_HED - W_O_HED.mean(-1, keepdim=True)
    # from_pretrained folds the norm before it moves the bias, so the bias holds what the norm adds.
    norm_D = bridge.blocks[layer].ln1.bias.detach().cpu().float()
    W_V_HDE, b_V_HE = (weights[layer].detach().cpu().float() for weights in (bridge.W_V, bridge.b_V))
    bias_HE = b_V_HE + torch.einsum("d,hde->he", norm_D, W_V_HDE)
    return _on_z(linears, centred_HED, bias_HE)


def _on_z(linears: Linears, W_O_HED: torch.Tensor, shift_HE: torch.Tensor | None) -> AffineMaps:
    """Maps on z, of lenses on the output of z - `shift_HE`; head by head, because a (V, D) weight is large."""
    weights, biases = [], []
    for head in range(len(W_O_HED)):
        weight_VD, bias_V = linears[head]
        weight_EV = W_O_HED[head] @ weight_VD.float().T
        weights.append(weight_EV)
        biases.append(bias_V.float() if shift_HE is None else bias_V.float() - shift_HE[head] @ weight_EV)
    return AffineMaps(weight_HEV=torch.stack(weights), bias_HV=torch.stack(biases))
