"""`alens import`: published lenses -> a lens directory, to be judged and read beside fitted ones.

In: a published AttentionLens checkpoint, a file of Jacobian lenses, a tuned-lens directory or an `alens export`, and the model they are for. Out:
a lens directory like that of a fit, whole or absent, of design `imported`. What the publication does not say is null.
Shapes: H heads, E d_head, D d_model.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError, StoppedError
from alens.exchange import alens_export, attention_lens, jacobian_lens, tuned_lens
from alens.exchange.folder import check_free, whole_folder
from alens.exchange.published import PublishedLenses, Reader
from alens.exchange.request import ImportRequest
from alens.job.progress import Progress, Report, ShouldStop, counted, never, silent
from alens.lens.directory import LensDirectory
from alens.lens.lenses import Lenses
from alens.lens.maps import LayerLenses
from alens.lens.record import LensRecord
from alens.model import models
from alens.model.models import LoadedModel
from alens.store import typed
from alens.store.schema import ATTN_Z

DESIGN = "imported"

READERS: tuple[Reader, ...] = (alens_export, tuned_lens, jacobian_lens, attention_lens)


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
        directory, layers = LensDirectory(folder), _layers(published, model, report, should_stop)
        files = directory.put_lenses(published.heads, layers, published.log_mean_output_V)
        directory.put_record(_record(published, model, request, files))
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
        f"{source} is nothing that alens imports: give an AttentionLens checkpoint (.ckpt, .pt), a file of Jacobian lenses (.pt), a tuned-lens directory "
        "(config.json, params.pt) or a directory that `alens export` wrote"
    )


def _layers(
    published: PublishedLenses, model: LoadedModel, report: Report, should_stop: ShouldStop
) -> Iterator[tuple[int, LayerLenses]]:
    """The lenses of each layer, as they are written. Raises `StoppedError`."""
    for layer in counted(published.heads.layers, report, "import", "layers"):
        if should_stop():
            raise StoppedError("stopped, and nothing was written: run the same command again")
        W_O_HED = (
            model.output_matrices(model.source.record)[layer, list(published.heads.by_layer[layer])]
            if published.site == ATTN_Z
            else None
        )
        maps, mean_z_HE = published.maps(layer), published.mean_z(layer)
        yield layer, LayerLenses(maps=maps, W_O_HED=W_O_HED, mean_z_HE=mean_z_HE)


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
            bos=published.bos,
            cache=dict(published.cache),
            layers=published.heads.layers,
            heads=published.heads.as_json,
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
