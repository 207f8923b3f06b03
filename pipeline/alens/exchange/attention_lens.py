"""Checkpoints of the published AttentionLens (github.com/msakarvadia/AttentionLens; arXiv 2310.16270).

In: a PyTorch Lightning `.ckpt`, or a state dict, of one layer; or a directory of them. Out: `PublishedLenses`: affine maps on z.
LensA is `nn.Linear(d_model, d_vocab)` a head on the head's output a = z W_O, so on z it is `W_O weight^T`: exact.
Keys: `attn_lens.linears.{head}.weight` (V, D) and `.bias` (V), earlier `attn_lens.lenses.0.linears...`; heads are
numbered as the model's. The layer stands in the file's name only (`attnlens-layer-9-epoch=...`).

The early code took head outputs from TransformerLens' `from_pretrained`, which processes weights: the value bias
moves behind the attention (z' = z - b), W_O is centred over D. Later code took them from the plain model.
`processed` weights are turned back exactly: z' W_O' weight^T = z (W_O' weight^T) - b W_O' weight^T.
Shapes: H heads, E d_head, D d_model, V vocabulary.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.exchange.published import PublishedLenses
from alens.exchange.weights_only import is_whole, load_weights
from alens.lens.maps import AffineMaps
from alens.model.models import LoadedModel
from alens.store.schema import ATTN_Z

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
WEIGHTS = ("auto", "raw", "processed")
"""Which weights of the model the head outputs came from."""

TRAINING = (
    "LensA: the readings of a layer's heads are summed before the loss, KL(model, lens) at the last position of a "
    "right-padded sentence (every position in early versions), Adam, from the unembedding; read alone, a head's lens "
    "says its part of the sum"
)
_KEY = re.compile(r"(?:attn_lens\.)?(?:lenses\.(\d+)\.)?linears\.(\d+)\.(weight|bias)")
_LAYER = re.compile(r"layer[-_=]?(\d+)")

Linears = Mapping[int, tuple[torch.Tensor, torch.Tensor]]


def is_one(source: Path) -> bool:
    """Whether `source` looks like such a checkpoint, or a directory of them."""
    return bool(_files(source))


def read(source: Path, model: LoadedModel, *, layer: int | None, weights: str) -> PublishedLenses:
    """Lenses of `source`. Raises `RequestError` for what is no such checkpoint, or of another model."""
    record = model.source.record
    by_layer = _layers(source, layer)
    opened = {number: _open(path, model) for number, path in by_layer.items()}
    for number in by_layer:
        if not 0 <= number < record.n_layers:
            raise RequestError(
                f"layer {number} does not exist: {record.id} has layers 0 to {record.n_layers - 1}"
            )
    taken = {number: _weights(weights, keys) for number, (_, keys) in opened.items()}

    def maps(number: int) -> AffineMaps:
        turn = _processed if taken[number] == "processed" else _raw
        return turn(opened[number][0], model, number)

    return PublishedLenses(
        program="attention-lens",
        site=ATTN_Z,
        form=AffineMaps.form,
        layers=tuple(sorted(by_layer)),
        heads=tuple(range(record.n_heads)),
        maps=maps,
        notes={
            "files": {str(number): path.name for number, path in sorted(by_layer.items())},
            "model_weights": {str(number): taken[number] for number in sorted(taken)},
            "training": TRAINING,
        },
    )


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix in SUFFIXES)
    return [source] if source.suffix in SUFFIXES else []


def _layers(source: Path, layer: int | None) -> dict[int, Path]:
    """The file of each layer: by its name, or by `--layer` for one file whose name says nothing."""
    found: dict[int, Path] = {}
    for path in _files(source):
        said = _LAYER.search(path.stem)
        number = int(said[1]) if said else layer
        if number is None:
            raise RequestError(f"the name of {path} says no layer: say it with --layer")
        if layer is not None and number != layer:
            if source.is_dir():
                continue
            raise RequestError(
                f"the name of {path} says layer {number}, and --layer {layer}: leave --layer out"
            )
        if number in found:
            raise RequestError(f"{found[number]} and {path} are both of layer {number}: name one of them")
        found[number] = path
    if not found:
        raise RequestError(f"{source} has no checkpoint of layer {layer}: look at the names of its files")
    return found


def _open(path: Path, model: LoadedModel) -> tuple[Linears, list[str]]:
    """The checked linear maps of a file by head, and all of its keys."""
    body = load_weights(path)
    state = body.get("state_dict", body)
    if not isinstance(state, dict):
        raise RequestError(
            f"{path} has a state_dict that is no dictionary: give the checkpoint as it was saved"
        )
    keys = [str(key) for key in state]
    parts: dict[int, dict[str, torch.Tensor]] = {}
    for key in keys:
        if matched := _KEY.fullmatch(key):
            if matched[1] not in (None, "0"):
                raise RequestError(f"{path} holds lenses of several layers ({key}): give a file a layer")
            parts.setdefault(int(matched[2]), {})[matched[3]] = state[key]
    record = model.source.record
    if sorted(parts) != list(range(record.n_heads)):
        what = f"lenses of {len(parts)} heads" if parts else "no attn_lens.linears.0.weight"
        raise RequestError(
            f"{path} has {what}, and {record.id} {record.n_heads} heads a layer: it is no AttentionLens checkpoint of this model"
        )
    shapes = {"weight": (record.d_vocab, record.d_model), "bias": (record.d_vocab,)}
    for head, of in parts.items():
        for name, shape in shapes.items():
            given = of.get(name)
            if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape or not is_whole(given):
                found = tuple(given.shape) if isinstance(given, torch.Tensor) else "nothing"
                raise RequestError(
                    f"{path} has {found} for linears.{head}.{name}, and {record.id} needs {shape}: it is of another model, or not whole"
                )
    _check_unembedding(path, state, model)
    return {head: (of["weight"], of["bias"]) for head, of in parts.items()}, keys


def _check_unembedding(path: Path, state: Mapping[str, Any], model: LoadedModel) -> None:
    """A training checkpoint also holds the model: it must be this one."""
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


def _weights(asked: str, keys: list[str]) -> str:
    if asked != "auto":
        return asked
    # Only the early code named its lenses `lenses.0`, and only TransformerLens names blocks `blocks.0.attn`.
    early = any(re.search(r"lenses\.0\.linears|\bblocks\.\d+\.attn\.", key) for key in keys)
    return "processed" if early else "raw"


def _raw(linears: Linears, model: LoadedModel, layer: int) -> AffineMaps:
    return _folded(linears, model.W_O_LHED[layer].cpu().float(), lambda moved_EV, head: 0.0)


def _processed(linears: Linears, model: LoadedModel, layer: int) -> AffineMaps:
    bridge = model.bridge
    W_O_HED = model.W_O_LHED[layer].cpu().float()
    centred_HED = W_O_HED - W_O_HED.mean(-1, keepdim=True)
    # from_pretrained folds the norm before it moves the bias: what the norm adds has gone into it.
    norm_D = bridge.blocks[layer].ln1.bias.detach().cpu().float()
    W_V_HDE, b_V_HE = (of[layer].detach().cpu().float() for of in (bridge.W_V, bridge.b_V))
    bias_HE = b_V_HE + torch.einsum("d,hde->he", norm_D, W_V_HDE)
    return _folded(linears, centred_HED, lambda moved_EV, head: bias_HE[head] @ moved_EV)


def _folded(
    linears: Linears, W_O_HED: torch.Tensor, less: Callable[[torch.Tensor, int], torch.Tensor | float]
) -> AffineMaps:
    """Head by head: a (V, D) weight is large, an (E, V) one small."""
    weights, biases = [], []
    for head in range(len(W_O_HED)):
        weight_VD, bias_V = linears[head]
        moved_EV = W_O_HED[head] @ weight_VD.float().T
        weights.append(moved_EV)
        biases.append(bias_V.float() - less(moved_EV, head))
    return AffineMaps(weight_HEV=torch.stack(weights), bias_HV=torch.stack(biases))
