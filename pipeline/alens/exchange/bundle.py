"""The files that `alens publish` publishes, prepared and checked before anything leaves the machine.

In: a lens directory, and on request its cache and further figures. Out: a `Bundle`, which has every file with its size
and hash. `lens.json` and the plan go without host names and absolute paths (`local_paths.py`). Weights go as they are,
each checked against `lens.json`; files that `lens.json` does not name are not published. The plan keeps its identity,
which covers neither names nor paths. A bundle that is written to disk is a lens directory.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError, StoppedError
from alens.exchange import held_out_figures, lens_card, local_paths
from alens.exchange.folder import check_free, check_room, whole_folder
from alens.exchange.local_paths import ShortenedPath
from alens.exchange.request import FIGURES, BundleRequest
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.directory import MEAN_OUTPUT, UNEMBEDDING, layer_file
from alens.lens.lens_forms import WITH_UNEMBEDDING
from alens.lens.lenses import Lenses, load_lenses
from alens.lens.record import ADDITIONS
from alens.printable import printable
from alens.result import Result
from alens.store import document, durable
from alens.store.cache_reader import open_cache
from alens.store.paths import LENS_JSON, MANIFEST, PLAN

CARD, CACHE = "README.md", "cache"


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    """One file of the bundle."""

    path: str
    """Its path in the repository."""
    source: Path | bytes
    """A file of this machine, or the content that was made for the bundle."""
    bytes: int
    sha256: str
    what: str
    """What it is, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Bundle(Result):
    """What is to be published."""

    repository: str
    message: str
    """The message of the commit."""
    files: tuple[BundleFile, ...]
    shortened: tuple[ShortenedPath, ...]
    """Paths of this machine that were shortened in what is published."""
    named: tuple[str, ...]
    """Paths of this machine that figures name: these would be published."""
    missing: tuple[str, ...]
    """What readers of the lenses may miss in the bundle, a line each."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def headline(self) -> str:
        """Where it goes, and its size."""
        missing = f", {len(self.missing)} things missing" if self.missing else ""
        return f"{len(self.files)} files, {self.bytes:,} bytes, for {self.repository}{missing}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each file, without its content."""
        return [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256, "what": f.what} for f in self.files]

    def to_json(self) -> dict[str, Any]:
        """Everything but the contents."""
        return {
            "repository": self.repository,
            "message": self.message,
            "bytes": self.bytes,
            "files": self.records(),
            "shortened": [dataclasses.asdict(one) for one in self.shortened],
            "named": list(self.named),
            "missing": list(self.missing),
        }


def prepare(request: BundleRequest, *, report: Report = silent, should_stop: ShouldStop = never) -> Bundle:
    """Make the bundle; reads and hashes every file of the lenses.

    Raises `RequestError` for what cannot be published as asked, `DamageError` when a file is not what `lens.json`
    or the cache says, `StoppedError`.
    """
    lenses = load_lenses(request.lenses)
    cache, shortened = _cache_files(lenses, request.store)
    weights = list(_weights(lenses, report, should_stop))
    body, shortened_here = _description(lenses)
    given = [
        _made(f"{FIGURES}/{path.name}", path.read_bytes(), "given with --figures") for path in request.figures
    ]
    drawn = [_made(f"{FIGURES}/{name}", content, what) for name, content, what in held_out_figures.make(body)]
    card = lens_card.text(
        body,
        repository=request.repository,
        figures=[file.path for file in (*drawn, *given)],
        has_cache=bool(cache),
        license_id=request.license_id,
    )
    description = _made(LENS_JSON, document.encode(body), "what the lenses are")
    return Bundle(
        repository=request.repository,
        message=_message(body),
        files=(_made(CARD, card.encode(), "model card"), description, *weights, *drawn, *given, *cache),
        shortened=(*shortened_here, *shortened),
        named=tuple(
            f"{file.path}: {place}" for file in given for place in local_paths.named_in(_content(file))
        ),
        missing=tuple(_missing(request, body)),
    )


def write(bundle: Bundle, out: Path) -> None:
    """Write the bundle as the directory `out`, whole or not at all. Raises `RequestError`, `RunError`."""
    check_room(out, bundle.bytes)
    with whole_folder(out) as folder:
        for file in bundle.files:
            target = folder / file.path
            target.parent.mkdir(exist_ok=True)
            if isinstance(file.source, bytes):
                durable.put(target, file.source)
            else:
                shutil.copyfile(file.source, target)
                durable.sync_folder(target)  # it syncs a file just as well
            if durable.sha256_of(target) != file.sha256:
                raise DamageError(f"{file.path} changed while it was copied: run the same command again")
        for name in {Path(file.path).parent for file in bundle.files} - {Path()}:
            durable.sync_folder(folder / name)


def check_out(out: Path) -> None:
    """Raises `RequestError` unless the bundle can be written there; called before the work begins."""
    check_free(out)


def _weights(lenses: Lenses, report: Report, should_stop: ShouldStop) -> Iterator[BundleFile]:
    """The files that `lens.json` names, each checked against its hash."""
    record, root = lenses.record, lenses.root
    what = {layer_file(layer): f"lenses of layer {layer}" for layer in record.layers}
    if record.form in WITH_UNEMBEDDING:
        what[UNEMBEDDING] = "the model's unembedding"
    if lacking := sorted(what.keys() - record.files.keys()):
        raise DamageError(
            f"{root / LENS_JSON} does not name {lacking[0]}: fit again, or restore it from a copy"
        )
    what |= {MEAN_OUTPUT: "the model's mean output"} if MEAN_OUTPUT in record.files else {}
    report(Progress(stage="check", total=len(what), unit="files"))
    for done, name in enumerate(what):
        if should_stop():
            raise StoppedError("stopped, and nothing was published: run the same command again")
        lenses.check_file(name)
        path = root / name
        yield BundleFile(
            path=name,
            source=path,
            bytes=path.stat().st_size,
            sha256=record.files[name]["sha256"],
            what=what[name],
        )
        report(Progress(stage="check", done=done + 1, total=len(what), unit="files"))


def _description(lenses: Lenses) -> tuple[dict[str, Any], list[ShortenedPath]]:
    """`lens.json` as it is published, and the paths that were shortened in it."""
    body = lenses.record.to_json()
    body["software"] = {name: release for name, release in body["software"].items() if name != "host"}
    public, shortened = local_paths.shorten(body, LENS_JSON)
    return dict(public), shortened


def _cache_files(lenses: Lenses, store: Path | None) -> tuple[list[BundleFile], list[ShortenedPath]]:
    """The cache's plan and manifest as they are published. Raises `RequestError` unless the lenses were fitted on it."""
    if store is None:
        return [], []
    cache, fitted_on = open_cache(store), lenses.record.cache
    if fitted_on.get("plan") != cache.plan.identity:
        raise RequestError(
            f"{lenses.name} was not fitted on {store}: their plans differ; name the cache of the fit"
        )
    if not cache.sealed:
        raise RequestError(
            f"{store} is not sealed, so it has no {MANIFEST}: run `alens cache` again to finish it"
        )
    if fitted_on.get("fingerprint") not in (None, cache.fingerprint):
        raise RequestError(
            f"{lenses.name} was fitted on another writing of the plan of {store}: their fingerprints differ; name the cache of the fit"
        )
    plan, name = cache.plan, f"{CACHE}/{PLAN}"
    model_id, shortened_model = local_paths.shorten(plan.model.id, name, "model.id")
    corpus_id, shortened_corpus = local_paths.shorten(plan.corpus.id, name, "corpus.id")
    public = dataclasses.replace(
        plan,
        model=dataclasses.replace(plan.model, id=model_id),
        corpus=dataclasses.replace(plan.corpus, id=corpus_id),
        created={key: value for key, value in plan.created.items() if key != "host"},
    )
    assert public.identity == plan.identity
    files = [
        _made(name, public.to_json(), "the cache's plan"),
        _made(f"{CACHE}/{MANIFEST}", cache.paths.manifest.read_bytes(), "the cache's manifest"),
    ]
    return files, [*shortened_model, *shortened_corpus]


def _missing(request: BundleRequest, body: dict[str, Any]) -> Iterator[str]:
    if request.license_id is None:
        yield "a license: choose one with --license, mind those of the model and of the text"
    if request.store is None:
        yield "plan and manifest of the cache: name it with --store"
    if not body["held_out"] and body["form"] not in ADDITIONS:
        yield "held-out figures: lens.json has none"
    if body["model"]["id"].startswith(local_paths.LOCAL):
        yield "a place of the model: it is a directory of yours, so readers have to have it, and say --model"


def _message(body: dict[str, Any]) -> str:
    layers = ", ".join(map(str, body["layers"]))
    what = f"layers {layers}" if len(body["layers"]) > 1 else f"layer {layers}"
    return printable(
        f"Lenses of {body['model']['id'].removeprefix(local_paths.LOCAL)}, {what} (alens {version('alens')})"
    )


def _made(path: str, content: bytes, what: str) -> BundleFile:
    digest = hashlib.sha256(content).hexdigest()
    return BundleFile(path=path, source=content, bytes=len(content), sha256=digest, what=what)


def _content(file: BundleFile) -> bytes:
    return file.source if isinstance(file.source, bytes) else file.source.read_bytes()
