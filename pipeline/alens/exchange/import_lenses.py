"""`alens import`: published lenses -> a lens directory, to be judged and read beside fitted ones.

In: a published AttentionLens checkpoint, a tuned-lens directory or an `alens export`, and the model they are for. Out:
a lens directory like that of a fit, whole or absent, design `imported`. What the publication does not say is null.
Shapes: H heads, E d_head, D d_model.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError, StoppedError
from alens.exchange import alens_export, attention_lens, tuned_lens
from alens.exchange.folder import check_free, whole_folder
from alens.exchange.published import PublishedLenses
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.lenses import OUTPUT, UNEMBEDDING, Lenses, layer_file, put_layer, put_tensors
from alens.lens.maps import LensMaps, TranslatedMaps
from alens.lens.record import LensRecord, put_record
from alens.model import models
from alens.model.models import LoadedModel
from alens.store import typed
from alens.store.schema import ATTN_Z

DESIGN = "imported"


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What is asked for."""

    source: Path
    """A checkpoint, or a directory."""
    lenses: Path
    """The directory to write."""
    model: str
    """A local directory, a hub id, or `demo`: weights that the publication does not hold come from it."""
    revision: str | None = None
    layer: int | None = None
    """Only this layer; also says whose checkpoint it is when the name of the file does not."""
    weights: str = "auto"
    """Which weights of the model an AttentionLens was trained on: raw, processed, or as its keys say."""

    def __post_init__(self) -> None:
        if self.weights not in attention_lens.WEIGHTS:
            raise RequestError(f"weights {self.weights!r}: choose of {', '.join(attention_lens.WEIGHTS)}")


def import_lenses(
    request: ImportRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> LensRecord:
    """Write the lens directory. Raises `RequestError`, `DamageError` or `RunError`; then nothing is written."""
    program = _program(request.source)
    check_free(request.lenses)
    source = models.find(request.model, request.revision, report=report)
    model = models.load(source, dtype="float32", device="cpu", report=report)
    report(Progress(stage="reading the lenses"))
    found = _read(program, request, model)
    files: dict[str, Any] = {}
    with whole_folder(request.lenses) as folder:
        report(Progress(stage="import", total=len(found.layers), unit="layers"))
        for number, layer in enumerate(found.layers):
            if should_stop():
                raise StoppedError("stopped, and nothing was written: run the same command again")
            maps = found.maps(layer)
            tensors = _tensors(maps, found, model, layer)
            files[layer_file(layer)] = put_layer(folder, layer, found.heads, tensors)
            report(Progress(stage="import", done=number + 1, total=len(found.layers), unit="layers"))
        if isinstance(maps, TranslatedMaps):
            files[UNEMBEDDING] = put_tensors(folder, UNEMBEDDING, {"W_U": maps.W_U_DV, "b_U": maps.b_U_V})
        if found.log_mean_output_V is not None:
            files[OUTPUT] = put_tensors(folder, OUTPUT, {"log_mean_output": found.log_mean_output_V})
        put_record(folder, _record(found, model, request, files))
    return Lenses(request.lenses).record


def _program(source: Path) -> str:
    """Which program wrote `source`. Raises `RequestError` when it is none that is known."""
    if not source.exists():
        raise RequestError(
            f"{source} does not exist: give a checkpoint, a tuned-lens directory or an alens export"
        )
    if alens_export.is_one(source):
        return "alens"
    if tuned_lens.is_one(source):
        return "tuned-lens"
    if attention_lens.is_one(source):
        return "attention-lens"
    raise RequestError(
        f"{source} is nothing that alens imports: give an AttentionLens checkpoint (.ckpt, .pt), a tuned-lens directory "
        "(config.json, params.pt) or a directory that `alens export` wrote"
    )


def _read(program: str, request: ImportRequest, model: LoadedModel) -> PublishedLenses:
    if program == "alens":
        return alens_export.read(request.source, model, layer=request.layer)
    if program == "tuned-lens":
        return tuned_lens.read(request.source, model, layer=request.layer)
    return attention_lens.read(request.source, model, layer=request.layer, weights=request.weights)


def _tensors(maps: LensMaps, found: PublishedLenses, model: LoadedModel, layer: int) -> dict[str, Any]:
    if found.site != ATTN_Z:
        return maps.tensors()
    return {**maps.tensors(), "W_O": model.W_O_LHED[layer, list(found.heads)]}


def _record(
    found: PublishedLenses, model: LoadedModel, request: ImportRequest, files: Mapping[str, Any]
) -> LensRecord:
    origin = {"program": found.program, "source": request.source.name, **found.notes}
    norm = None if model.final_norm is None else model.final_norm.record
    model_record = dataclasses.replace(model.source.record, final_norm=norm)
    try:
        record = LensRecord(
            design=DESIGN,
            form=found.form,
            site=found.site,
            objective=found.objective,
            model=model_record,
            tokenizer_sha256=model.source.tokenizer_sha256,
            cache=dict(found.cache),
            layers=found.layers,
            heads=found.heads,
            fit={
                "min_position": found.min_position,
                "teacher": None,
                "steps": None,
                "rows_seen": None,
                "origin": origin,
            },
            held_out=dict(found.held_out),
            mean_output_kl=found.mean_output_kl,
            files=dict(files),
            software={name: version(name) for name in ("alens", "torch")},
        )
    except TypeError as error:
        raise DamageError(f"{request.source} is not whole ({error}): fetch it again") from None
    typed.parse(
        LensRecord, dataclasses.asdict(record), str(request.source), "fetch it again"
    )  # what reading it asks
    return record
