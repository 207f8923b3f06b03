"""`alens import`: published lenses -> a lens directory, to be judged and read beside fitted ones.

In: a published AttentionLens checkpoint, a tuned-lens directory or an `alens export`, and the model they are for. Out:
a lens directory like that of a fit, whole or absent, of design `imported`. What the publication does not say is null.
Shapes: H heads, E d_head, D d_model.
"""

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError, StoppedError
from alens.exchange import alens_export, attention_lens, tuned_lens
from alens.exchange.folder import check_free, whole_folder
from alens.exchange.published import PublishedLenses, Reader
from alens.exchange.request import ImportRequest
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.lenses import OUTPUT, UNEMBEDDING, Lenses, layer_file, put_layer, put_tensors
from alens.lens.maps import LensMaps, TranslatedMaps
from alens.lens.record import LensRecord, put_record
from alens.model import models
from alens.model.models import LoadedModel
from alens.store import typed
from alens.store.schema import ATTN_Z

DESIGN = "imported"

READERS: tuple[Reader, ...] = (alens_export, tuned_lens, attention_lens)


def import_lenses(
    request: ImportRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> LensRecord:
    """Write the lens directory.

    Raises `RequestError`, `DamageError`, `RunError` or `StoppedError`; then nothing is written.
    """
    reader = _reader(request.source)
    check_free(request.lenses)
    source = models.find(request.model, request.revision, report=report)
    model = models.load(source, dtype="float32", device="cpu", report=report)
    report(Progress(stage="reading the lenses"))
    published = reader.read(request, model)
    with whole_folder(request.lenses) as folder:
        files = _write_maps(folder, published, model, report, should_stop)
        put_record(folder, _record(published, model, request, files))
    return Lenses(request.lenses).record


def _reader(source: Path) -> Reader:
    """The reader that knows `source`. Raises `RequestError` where none does."""
    if not source.exists():
        raise RequestError(
            f"{source} does not exist: give a checkpoint, a tuned-lens directory or an alens export"
        )
    for reader in READERS:
        if reader.recognises(source):
            return reader
    raise RequestError(
        f"{source} is nothing that alens imports: give an AttentionLens checkpoint (.ckpt, .pt), a tuned-lens directory "
        "(config.json, params.pt) or a directory that `alens export` wrote"
    )


def _write_maps(
    folder: Path, published: PublishedLenses, model: LoadedModel, report: Report, should_stop: ShouldStop
) -> dict[str, Any]:
    """Write every file but the record; returns the size and hash of each file by name."""
    files: dict[str, Any] = {}
    total = len(published.layers)
    report(Progress(stage="import", total=total, unit="layers"))
    for done, layer in enumerate(published.layers, start=1):
        if should_stop():
            raise StoppedError("stopped, and nothing was written: run the same command again")
        maps = published.maps(layer)
        files[layer_file(layer)] = put_layer(
            folder, layer, published.heads, _tensors(maps, published, model, layer)
        )
        report(Progress(stage="import", done=done, total=total, unit="layers"))
    if isinstance(maps, TranslatedMaps):
        files[UNEMBEDDING] = put_tensors(folder, UNEMBEDDING, {"W_U": maps.W_U_DV, "b_U": maps.b_U_V})
    if published.log_mean_output_V is not None:
        files[OUTPUT] = put_tensors(folder, OUTPUT, {"log_mean_output": published.log_mean_output_V})
    return files


def _tensors(maps: LensMaps, published: PublishedLenses, model: LoadedModel, layer: int) -> dict[str, Any]:
    if published.site != ATTN_Z:
        return maps.tensors()
    return {**maps.tensors(), "W_O": model.W_O_LHED[layer, list(published.heads)]}


def _record(
    published: PublishedLenses, model: LoadedModel, request: ImportRequest, files: Mapping[str, Any]
) -> LensRecord:
    """What `lens.json` will say. Raises `DamageError` where the publication does not fit together."""
    origin = {"program": published.program, "source": request.source.name, **published.notes}
    norm = None if model.final_norm is None else model.final_norm.record
    try:
        record = LensRecord(
            design=DESIGN,
            form=published.form,
            site=published.site,
            objective=published.objective,
            model=dataclasses.replace(model.source.record, final_norm=norm),
            tokenizer_sha256=model.source.tokenizer_sha256,
            cache=dict(published.cache),
            layers=published.layers,
            heads=published.heads,
            fit={
                "min_position": published.min_position,
                "teacher": None,
                "steps": None,
                "rows_seen": None,
                "origin": origin,
            },
            held_out=dict(published.held_out),
            mean_output_kl=published.mean_output_kl,
            files=dict(files),
            software={name: version(name) for name in ("alens", "torch")},
        )
    except TypeError as error:
        raise DamageError(f"{request.source} is not whole ({error}): fetch it again") from None
    # The same checks as when the directory is opened.
    typed.parse(LensRecord, dataclasses.asdict(record), str(request.source), "fetch it again")
    return record
