"""`alens export`: lenses in a form that can be used without alens, one safetensors file for each layer.

In: a lens directory. Out: a directory with `layer-NN.safetensors` (`head.H.weight`, `head.H.bias`), `config.json` and
`README.md`. The paper's form (arXiv 2310.16270) acts on the head's output a = z W_O in R^D. It is `pinv(W_O) weight`:
the same function on everything that the head can write, and of minimal norm, so that what is orthogonal to it reads as
zero. Form `z` is the lens as it was fitted. In the paper's form, one head is in memory at a time.
Shapes: H heads, E width of the site's values, D d_model, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch

from alens.errors import AlensError, RequestError, StoppedError
from alens.exchange import local_paths, model_card, safetensors_stream
from alens.exchange.folder import check_free, check_room, whole_folder
from alens.exchange.request import ExportForm, ExportRequest
from alens.heads import Heads
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.directory import MEAN_OUTPUT, LensDirectory, layer_file
from alens.lens.lens_forms import AFFINE_FORMS
from alens.lens.lenses import Lenses, opened_lenses
from alens.result import Result, number_of, plain
from alens.store import document, durable
from alens.store.model_record import ModelRecord
from alens.store.schema import ATTN_Z

FORMAT_NAME = "alens-export"
VERSION = 2
BY_LAYER_VERSION = 3
"""The version of exports whose layers have different heads: only these have it, so that an older alens refuses them."""
UNHASHED_VERSION = 1
"""The version from before `config.json` held its own hash."""
CONFIG, CARD = "config.json", "README.md"
MEAN_Z_FILE = "mean-z.safetensors"
"""E[z] of the heads over the cache, in float32 whatever the dtype of the lenses."""
FORMS = get_args(ExportForm)
PAPER, ON_Z = FORMS

RANK_TOLERANCE = 1e-5
"""How far W_O pinv(W_O) may be from the identity for a lens on z to be a lens on head outputs, too."""


@dataclass(frozen=True, kw_only=True)
class ExportPlan(Result):
    """What an export will write."""

    lenses: Lenses
    heads: Heads
    form: str
    dtype: str
    width: int
    """Rows of a weight: D in the paper's form, E in form `z`."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are written, a file each."""
        return self.heads.layers

    def shapes(self, heads: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors in the file of a layer that has these heads, by name."""
        d_vocab = self.lenses.record.model.d_vocab
        shapes: dict[str, tuple[int, ...]] = {}
        for head in heads:
            weight, bias = tensor_names(head)
            shapes |= {weight: (self.width, d_vocab), bias: (d_vocab,)}
        return shapes

    @property
    def bytes(self) -> int:
        """The size of the files of all layers."""
        return sum(file["bytes"] for file in self.records())

    def headline(self) -> str:
        """Which lenses, in which form, and their size."""
        return f"{self.lenses.name}, {number_of(len(self.layers), 'layer')} in form {self.form}, {self.dtype}, {self.bytes:,} bytes"

    def to_json(self) -> dict[str, Any]:
        """The name of the lenses, the form, and one entry for each file."""
        return {
            "lenses": self.lenses.name,
            "form": self.form,
            "dtype": self.dtype,
            "width": self.width,
            "bytes": self.bytes,
            "files": self.records(),
        }

    def records(self) -> list[dict[str, Any]]:
        """One record for each layer."""
        return [
            {
                "layer": layer,
                "heads": len(heads),
                "bytes": safetensors_stream.size_bytes(self.shapes(heads), self.dtype),
            }
            for layer, heads in self.heads.by_layer.items()
        ]


def export_lenses(
    lenses: Lenses | Path | str,
    out: str | Path,
    request: ExportRequest | None = None,
    *,
    report: Report = silent,
    should_stop: ShouldStop = never,
) -> ExportPlan:
    """Write `lenses` to the directory `out` as safetensors with a model card, in the paper's form unless told otherwise.

    Raises what `plan` and `write` raise.
    """
    planned = plan(opened_lenses(lenses), request)
    write(planned, Path(out), report=report, should_stop=should_stop)
    return planned


def tensor_names(head: int) -> tuple[str, str]:
    """The names of a head's weight and bias in the file of its layer."""
    return f"head.{head}.weight", f"head.{head}.bias"


def mean_z_name(layer: int) -> str:
    """The name of E[z] of a layer's heads, (H, E)."""
    return f"layer.{layer}"


def plan(lenses: Lenses, request: ExportRequest | None = None) -> ExportPlan:
    """Which lenses are exported, and how. Raises `RequestError` for lenses that do not have this form."""
    request = request or ExportRequest()
    record, form = lenses.record, request.form
    if record.form not in AFFINE_FORMS:
        raise RequestError(
            f"{lenses.name} holds lenses of the form {record.form!r}: only affine lenses have a weight and a bias to export"
        )
    if form == PAPER and record.site != ATTN_Z:
        raise RequestError(f"{lenses.name} holds lenses of {record.site}, which has no heads: take --form z")
    if form == PAPER and (why := record.model.no_fixed_write) is not None:
        raise RequestError(f"{why}: the paper's form acts on what heads write, take --form z")
    heads = lenses.choose(request.layers, request.heads)
    on_z = record.site == ATTN_Z and form == ON_Z
    width = record.model.d_head if on_z else record.model.d_model
    return ExportPlan(lenses=lenses, heads=heads, form=form, dtype=request.dtype, width=width)


def write(plan: ExportPlan, out: Path, *, report: Report = silent, should_stop: ShouldStop = never) -> None:
    """Write the directory `out`, whole or not at all; does nothing where it holds the same export already.

    Raises `RequestError` when `out` holds anything else, `RunError` when the disk is too full, and `StoppedError`.
    """
    body = _config(plan)
    if _is_there(out, body):
        return
    check_free(out)
    check_room(out, plan.bytes)
    files: dict[str, Any] = {}
    done = 0
    report(Progress(stage="export", total=len(plan.heads), unit="heads"))
    with whole_folder(out) as folder:
        for layer, heads in plan.heads.by_layer.items():
            tensors = _tensors(plan, layer, done, report, should_stop)
            files[layer_file(layer)] = safetensors_stream.put(
                folder / layer_file(layer), plan.shapes(heads), plan.dtype, tensors
            )
            done += len(heads)
        mean_V = plan.lenses.log_mean_output()
        if mean_V is not None:
            shapes = {"log_mean_output": tuple(mean_V.shape)}
            files[MEAN_OUTPUT] = safetensors_stream.put(folder / MEAN_OUTPUT, shapes, "float32", [mean_V])
        means = _means(plan)
        if means:
            shapes = {name: tuple(mean_HE.shape) for name, mean_HE in means.items()}
            files[MEAN_Z_FILE] = safetensors_stream.put(
                folder / MEAN_Z_FILE, shapes, "float32", means.values()
            )
        body["files"] = files
        durable.put(folder / CARD, model_card.text(body).encode())
        durable.put(folder / CONFIG, document.encode(body))


def _tensors(
    plan: ExportPlan, layer: int, done: int, report: Report, should_stop: ShouldStop
) -> Iterator[torch.Tensor]:
    fitted = plan.lenses.read_layer(layer)
    for number, head in enumerate(plan.heads.by_layer[layer], start=done + 1):
        if should_stop():
            raise StoppedError("stopped, and nothing was written: run the same command again")
        index = plan.lenses.place(layer, head)
        weight, bias_V = fitted.maps.affine(index)
        if plan.form == PAPER:
            assert fitted.W_O_HED is not None  # lenses on attn.z always have it
            weight = _inverse(fitted.W_O_HED[index], f"{layer}.{head}") @ weight
        yield weight
        yield bias_V
        report(Progress(stage="export", done=number, total=len(plan.heads), unit="heads"))


def _means(plan: ExportPlan) -> dict[str, torch.Tensor]:
    """E[z] of the exported heads by layer, as the file names it; without the layers whose lenses do not hold it."""
    means = {
        mean_z_name(layer): plan.lenses.mean_z(layer, heads) for layer, heads in plan.heads.by_layer.items()
    }
    return {name: mean_HE for name, mean_HE in means.items() if mean_HE is not None}


def _inverse(W_O_ED: torch.Tensor, head: str) -> torch.Tensor:
    """(D, E) pseudo-inverse; float64, because W_O is badly scaled."""
    wide_ED = W_O_ED.double()
    inverse_DE = torch.linalg.pinv(wide_ED)
    error = float((wide_ED @ inverse_DE - torch.eye(len(wide_ED), dtype=torch.float64)).abs().max())
    if not error < RANK_TOLERANCE:
        raise RequestError(
            f"the W_O of head {head} does not have full rank: its lens is not a function of the head's output; take --form z"
        )
    inverse_float_DE: torch.Tensor = inverse_DE.float()
    return inverse_float_DE


def _is_there(out: Path, body: dict[str, Any]) -> bool:
    """Whether `out` already holds the export that `body` describes."""
    try:
        stored = read_config(out)
    except (OSError, AlensError):
        return False
    return all(
        stored.get(key) == body[key] for key in ("format", "source", "layers", "heads", "form", "dtype")
    )


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of an export says, without its hash and version.

    Raises `DamageError` when it was altered, `RequestError` for another version.
    """
    path = folder / CONFIG
    return document.decode_either(
        document.content(path, "fetch it again"),
        str(path),
        "fetch it again",
        field="version",
        hashed=(VERSION, BY_LAYER_VERSION),
        unhashed=UNHASHED_VERSION,
        holds="heads and figures",
    )


def _config(plan: ExportPlan) -> dict[str, Any]:
    record = plan.lenses.record
    return {
        "format": FORMAT_NAME,
        "version": VERSION if plan.heads.shared is not None else BY_LAYER_VERSION,
        "form": plan.form,
        "dtype": plan.dtype,
        "site": record.site,
        "input": _input(plan),
        "use": "logits = input @ weight + bias",
        "layers": list(plan.layers),
        "heads": plain(plan.heads.as_json),
        "tensors": {name: list(shape) for name, shape in plan.shapes(plan.heads.columns).items()},
        "model": _public(record.model),
        "tokenizer_sha256": record.tokenizer_sha256,
        "bos": record.bos,
        "design": record.design,
        "objective": record.objective,
        "fit": local_paths.shorten(record.fit, CONFIG)[0],
        "cache": local_paths.shorten(record.cache, CONFIG)[0],
        "held_out": {
            layer: [
                figures
                for head, figures in zip(record.lenses.by_layer[int(layer)], by_head, strict=True)
                if (int(layer), head) in plan.heads
            ]
            for layer, by_head in record.held_out.items()
            if int(layer) in plan.layers
        },
        "mean_output_kl": record.mean_output_kl,
        "source": {"lens_json_sha256": durable.sha256_of(LensDirectory(plan.lenses.root).lens_json)},
        "software": {
            **{name: release for name, release in record.software.items() if name != "host"},
            "exported_by": f"alens {version('alens')}",
        },
    }


def _public(model: ModelRecord) -> dict[str, Any]:
    """The model's record as it is published: of a local directory only the name, because the hash says more."""
    return {**asdict(model), "id": model.name}


def _input(plan: ExportPlan) -> str:
    """What the weights are multiplied with, for readers of `config.json`."""
    if plan.form == PAPER:
        return "a = z W_O, what the head writes into the residual stream, d_model numbers: hook_result of TransformerLens, without b_O"
    if plan.lenses.record.site == ATTN_Z:
        return "z, what the head mixes before W_O, d_head numbers: hook_z of TransformerLens"
    return f"{plan.lenses.record.site}, d_model numbers: hook_{plan.lenses.record.site} of TransformerLens"
