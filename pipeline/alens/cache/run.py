"""`alens cache`: plan -> forward -> write, resumable; any worker may be stopped at any time.

In: MODEL, CORPUS, a store directory and settings. Out: the store, with this worker's shards committed,
sealed once all are. The first job makes tokens and plan; later ones check that they were asked for the
same and write what is missing.
"""

import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from alens.cache import model as models
from alens.cache import shard as shards
from alens.cache import text, tokens
from alens.cache.plan import Worker, shards_to_write
from alens.errors import RequestError, StoppedError
from alens.progress import Progress, Report, ShouldStop, never, silent
from alens.store.durable import PARTIAL, remove
from alens.store.paths import StorePaths
from alens.store.reader import Cache, open_cache
from alens.store.schema import CacheSettings, Plan, differences
from alens.store.writer import ShardWriter, put_manifest, put_skeleton, write_errors

OWN_NAMES = {"tokens.npy", "arrays.zarr", "commits", "plan.json"}
"""What may be in STORE before there is a plan: what a job left that died, or what another is just writing."""


@dataclass(frozen=True, kw_only=True)
class CacheRequest:
    """Everything `alens cache` was asked for."""

    model: str
    """A hub id, a local directory, or `demo`."""
    corpus: str
    """`bookcorpus`, a hub id, a file or directory of .txt, .jsonl or .parquet, or `demo`."""
    store: Path
    """The directory to write."""
    settings: CacheSettings = field(default_factory=CacheSettings)
    options: text.CorpusOptions = field(default_factory=text.CorpusOptions)
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    device: str = "auto"
    worker: Worker = field(default_factory=Worker)


@dataclass(frozen=True, kw_only=True)
class CacheSummary:
    """What one run of `write_cache` did."""

    cache: Cache
    shards_written: int
    rows_written: int
    seconds: float
    """From the first forward pass on."""


def write_cache(
    request: CacheRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> CacheSummary:
    """Write this worker's missing shards; seal the cache when none is missing anywhere.

    Raises `RequestError` for what cannot be done as asked, `RunError` for a full disk and the like,
    `StoppedError` when `should_stop` says so: committed shards stay, and the next run goes on.
    """
    source = models.find(request.model, request.revision)
    _check_settings(request.settings, source)
    corpus = text.resolve(request.corpus, request.options)
    subject: models.Subject | None = None
    plan = _stored_plan(request, source, corpus)
    if plan is None:
        _check_place(request.store)
        subject = models.load(source, dtype=request.settings.dtype, device=request.device)
        plan = _make_plan(request, source, corpus, subject, report, should_stop)
    return _write_shards(request, plan, source, subject, report, should_stop)


def _stored_plan(request: CacheRequest, source: models.ModelSource, corpus: text.Corpus) -> Plan | None:
    """The plan in STORE, if there is one. Raises `RequestError` when it is not what is asked for."""
    if not StorePaths(request.store).plan.exists():
        return None
    plan = open_cache(request.store).plan
    found = differences(plan, source.record, corpus.record, source.tokenizer_sha256, request.settings)
    if found:
        raise RequestError(
            f"{request.store} holds another plan: {'; '.join(found)}. Ask for the same, or name a new STORE"
        )
    return plan


def _check_settings(settings: CacheSettings, source: models.ModelSource) -> None:
    model = source.record
    for layer in settings.layers or ():
        if not 0 <= layer < model.n_layers:
            raise RequestError(
                f"layer {layer} does not exist: {model.id} has layers 0 to {model.n_layers - 1}"
            )
    if settings.layers is not None and (
        not settings.layers or len(set(settings.layers)) != len(settings.layers)
    ):
        raise RequestError("layers is empty or names a layer twice: name each layer once")
    if settings.top_k > model.d_vocab:
        raise RequestError(
            f"top_k is {settings.top_k}: {model.id} has {model.d_vocab} tokens in its vocabulary"
        )
    if settings.seq_len > model.n_ctx:
        raise RequestError(f"seq_len is {settings.seq_len}: {model.id} sees {model.n_ctx} tokens at most")


def _check_place(store: Path) -> None:
    """A new cache goes into a new or empty directory, or over what a job left that died before its plan."""
    if store.exists() and not store.is_dir():
        raise RequestError(f"{store} is not a directory: name a directory for the cache")
    with write_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        foreign = [
            p.name for p in store.iterdir() if p.name not in OWN_NAMES and not p.name.endswith(PARTIAL)
        ]
    if foreign:
        raise RequestError(
            f"{store} is neither empty nor a cache (it holds {sorted(foreign)[0]}): name another directory"
        )


def _make_plan(
    request: CacheRequest,
    source: models.ModelSource,
    corpus: text.Corpus,
    subject: models.Subject,
    report: Report,
    should_stop: ShouldStop,
) -> Plan:
    record = tokens.write_tokens(
        StorePaths(request.store).tokens,
        corpus,
        subject.tokenizer,
        source.tokenizer_sha256,
        subject.end_of_text,
        request.settings,
        source.record.d_vocab,
        report,
        should_stop,
    )
    plan = Plan(
        model=source.record,
        corpus=corpus.record,
        settings=request.settings,
        tokens=record,
        created=software(),
    )
    if (theirs := _stored_plan(request, source, corpus)) is not None:
        return theirs  # another job was faster; the same request gives the same tokens
    weights = {"model/W_O": subject.W_O_LHED, "model/W_U": subject.W_U_DV, "model/b_U": subject.b_U_V}
    put_skeleton(request.store, plan, {name: value.float().cpu().numpy() for name, value in weights.items()})
    return plan


def _write_shards(
    request: CacheRequest,
    plan: Plan,
    source: models.ModelSource,
    subject: models.Subject | None,
    report: Report,
    should_stop: ShouldStop,
) -> CacheSummary:
    cache = open_cache(request.store)
    size = plan.settings.rows_per_shard
    mine = shards_to_write(plan, request.worker, ())
    missing = shards_to_write(plan, request.worker, set(cache.committed()))
    started = time.monotonic()
    if missing:
        subject = subject or models.load(source, dtype=plan.settings.dtype, device=request.device)
        writer = ShardWriter(request.store, plan)
        with write_errors(request.store):
            remove(StorePaths(request.store).manifest)  # a sealed cache that lost a shard is no longer whole
        counter = _Counter(len(missing) * size, len(mine) * size, request.store, report, should_stop)
        for shard in missing:
            since = time.monotonic()
            writer.check_space()
            arrays = shards.compute(subject, plan, cache.tokens, shard, counter.after_batch)
            note = {
                "worker": str(request.worker),
                "device": str(subject.device),
                "threads": torch.get_num_threads(),
                "rows": size,
                "seconds": round(time.monotonic() - since, 3),
                "finished": time.time(),
                **software(),
            }
            writer.write(shard, arrays, note)
            counter.after_shard(size)
    cache = open_cache(request.store)
    if not cache.sealed and len(cache.shards) == plan.num_shards:
        put_manifest(request.store, plan, cache.files_by_shard())
        cache = open_cache(request.store)
    return CacheSummary(
        cache=cache,
        shards_written=len(missing),
        rows_written=len(missing) * size,
        seconds=time.monotonic() - started,
    )


class _Counter:
    """Counts rows, tells the watcher, and stops the work between two batches when asked to."""

    def __init__(self, to_do: int, total: int, store: Path, report: Report, should_stop: ShouldStop) -> None:
        self._before, self._total, self._store = total - to_do, total, store
        self._report, self._should_stop = report, should_stop
        self._committed, self._started = 0, time.monotonic()

    def after_batch(self, rows_of_shard: int) -> None:
        if self._should_stop():
            raise StoppedError(
                f"stopped; {self._before + self._committed:,} of this worker's {self._total:,} rows are committed "
                f"in {self._store}, run again to go on"
            )
        rows = self._committed + rows_of_shard
        note = f"{rows / (time.monotonic() - self._started):,.0f} rows/s"
        self._report(
            Progress(stage="cache", done=self._before + rows, total=self._total, unit="rows", note=note)
        )

    def after_shard(self, rows: int) -> None:
        self._committed += rows


def software() -> dict[str, str]:
    """Versions and host, for plan and commit records: provenance, not identity."""
    packages = ("alens", "torch", "transformer-lens", "transformers", "zarr", "numpy")
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in packages},
    }
