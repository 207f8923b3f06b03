"""The lens directory: `lens.json`, one safetensors file a layer, and the mean output. No pickles.

In: the lenses of a fit. Out: a directory that is whole once `lens.json` is there (it is written last),
and from it `Lenses`: checked names, shapes and hashes, tensors loaded a layer at a time. A repository of the hub
that holds such files (`hf://OWNER/NAME`) is read alike, its files fetched when they are first read.
Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from alens import hub
from alens.errors import DamageError, RequestError
from alens.lens.maps import FORMS, AffineMaps, LensMaps
from alens.store import durable
from alens.store.schema import ATTN_Z, ModelRecord

FORMAT = 2
DESCRIPTION = "lens.json"
OUTPUT = "output.safetensors"
UNEMBEDDING = "unembedding.safetensors"
"""`W_U` and `b_U`: only beside maps that end in them."""


def layer_file(layer: int) -> str:
    """The name of a layer's file in a lens directory."""
    return f"layer-{layer:02d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class LensRecord:
    """`lens.json`: what these lenses are, what they were fitted on and how well they do."""

    design: str
    """The form of the map in training; `fit` has its options. `imported`: they came from elsewhere."""
    form: str
    """What the files hold: `affine`, or `translated` (a map, a norm, the unembedding)."""
    site: str
    """What the lenses read: `attn.z`, or a site of the residual stream."""
    objective: str | None
    """None where lenses came from others who do not say."""
    model: ModelRecord
    """Of the cache they were fitted on."""
    cache: dict[str, Any]
    """The plan's identity, the fingerprint (None if it was not sealed), corpus, shards trained on and held out;
    None and empty where there was no cache."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    """Head numbers, the same in each layer; the first axis of every tensor follows them."""
    fit: dict[str, Any]
    """The settings of the fit, steps taken and rows seen."""
    held_out: dict[str, Any]
    """Held-out figures: KL in nats for each layer and head."""
    files: dict[str, dict[str, Any]]
    """Size and SHA-256 of each file."""
    software: dict[str, str]

    def __post_init__(self) -> None:
        """Raises `TypeError`: what is read may come from anywhere."""
        for name in ("cache", "fit", "held_out", "files", "software"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} is no object")
        numbers = (*self.layers, *self.heads)
        if {type(number) for number in numbers} - {int} or min(numbers, default=0) < 0:
            raise TypeError("layers and heads are not numbers")


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


class Lenses:
    """A lens directory that was opened. Attributes: `root` (where its files are), `name` (what messages call it),
    `commit` (of a repository of the hub, else None), `record`; tensors through `layer()`."""

    def __init__(self, root: Path | str) -> None:
        """Open a directory, or `hf://OWNER/NAME[@REVISION]`. Raises `RequestError` when it holds no lenses,
        `DamageError` when it is damaged."""
        self._address = hub.address(root)
        self.commit: str | None = None
        self.root = Path(root)
        if self._address is not None:
            self.root, self.commit = self._fetch(DESCRIPTION, self._address.revision)
        self.name = str(self._address or root)
        self.record = _read_record(self.root / DESCRIPTION, self.name, self._mend(DESCRIPTION))
        self._layers: dict[int, LayerLenses] = {}

    def _fetch(self, name: str, revision: str | None) -> tuple[Path, str]:
        """Of a repository: one file, into the hub cache; directory and commit."""
        assert self._address is not None
        return hub.snapshot(
            self._address.repository, kind="model", revision=revision, patterns=[name], asked=self._address
        )

    def _mend(self, name: str) -> str:
        """What to do about a damaged file."""
        if self._address is None:
            return "fit again, or restore it from a copy"
        return (
            f"fetch it again with `hf download {self._address.repository} {name} --revision {self.commit} "
            "--force-download`, or ask who published it"
        )

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
        """Layers and heads to read, default all; opens the layers. Raises `RequestError` for what was not fitted,
        `DamageError`."""
        layers = tuple(self.record.layers if layers is None else layers)
        heads = tuple(self.record.heads if heads is None else heads)
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

    def check_model(self, weights_sha256: str, name: str) -> None:
        """Raises `RequestError` unless these are lenses of that model."""
        if weights_sha256 != self.record.model.weights_sha256:
            raise RequestError(
                f"{self.name} holds lenses of {self.record.model.id}, and {name} has other weights: lenses read the model they were fitted on"
            )

    def check_file(self, name: str) -> Path:
        """The file of that name, as it was written. Raises `DamageError`."""
        path, recorded = self.root / name, self.record.files.get(name)
        if self._address is not None and recorded is not None and not path.is_file():
            self._fetch(name, self.commit)
        if recorded is None or not path.is_file():
            raise DamageError(f"{path} is missing: {self._mend(name)}")
        if durable.sha256_of(path) != recorded.get("sha256"):
            raise DamageError(f"{path} was altered since it was written: {self._mend(name)}")
        return path

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


def put_record(root: Path, record: LensRecord) -> None:
    """Write `lens.json`: from now on the directory holds lenses."""
    body = {"format": FORMAT, **dataclasses.asdict(record)}
    durable.put(root / DESCRIPTION, (json.dumps(body, indent=2) + "\n").encode())


def _read_record(path: Path, name: str, mend: str) -> LensRecord:
    try:
        body = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(
            f"{name} holds no lenses (it has no {DESCRIPTION}): give a directory that `alens fit` finished, or a repository that `alens publish` filled"
        ) from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path} is not whole ({error}): {mend}") from None
    try:
        if (found := body.pop("format")) != FORMAT:
            raise RequestError(f"{path} has format {found}; this alens reads format {FORMAT}")
        lists = {name: tuple(body[name]) for name in ("layers", "heads")}
        return LensRecord(**{**body, **lists, "model": ModelRecord(**body["model"])})
    except (AttributeError, KeyError, TypeError) as error:
        raise DamageError(f"{path} is not whole ({error}): {mend}") from None
