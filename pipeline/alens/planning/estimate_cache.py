"""`alens plan`: what a cache would take, measured and computed before anything is written.

In: what `alens cache` would be asked for, and where. Out: an `Estimate`. The request is checked as `alens
cache` checks it. Where STORE holds a plan already, its tokens are used and only what is missing counts.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.cache.held_out_documents import Division, divide, held_out_shards
from alens.cache.prepare import check_place, software, stored_plan
from alens.cache.request import CacheRequest, check_settings
from alens.cache.token_sequences import check_fills_a_shard
from alens.errors import RequestError
from alens.fit.optimiser import STATE
from alens.job.progress import Progress, Report, silent
from alens.machine.threads import follow_allotment
from alens.model import models
from alens.model.examine import examine, say
from alens.planning import disk
from alens.planning import rates as probe
from alens.planning import token_count as text
from alens.planning.costs import Costs, FitCosts, Room, rows_of_slowest
from alens.planning.sizes import Sizes, sizes_of
from alens.store.arrays import token_dtype
from alens.store.cache_reader import Cache, open_cache
from alens.store.schema import Plan, TokensRecord
from alens.store.writer import SPARE_BYTES
from alens.text import corpus as texts
from alens.text.text_tokens import TextTokens

NOT_HASHED = "not written"
"""In the place of the hash of tokens that there will be."""

PROBES = ("model", "codecs", "fit", "disk")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Everything that was found; `figures.py` makes plain numbers of it."""

    plan: Plan
    """As `alens cache` would write it, but for hashes; its tokens may be an estimate."""
    device: str
    text: text.TextEstimate | None
    """None where STORE holds a plan: its text is tokenised."""
    shards_done: int
    workers: int
    max_minutes: float | None
    sizes: Sizes
    model: probe.ModelRates
    codecs: probe.CodecRates
    disk: disk.DiskRates
    fit_head_s: float
    """Seconds of a fit for a row and a head."""
    threads: int
    load: float
    """Processes that wanted a CPU in the minute before anything was measured."""
    room: Room

    @property
    def shards_left(self) -> int:
        return self.plan.num_shards - self.shards_done

    @property
    def rows_left(self) -> int:
        return self.shards_left * self.plan.settings.rows_per_shard

    @property
    def memory_bytes(self) -> int:
        """Of a worker: one shard's arrays, those of the next while they are written, and all else."""
        return self.model.memory_bytes + self._unprobed_bytes + 2 * self.sizes.shard_memory_bytes

    @property
    def _unprobed_bytes(self) -> int:
        """Activations of the sequences by which a batch is larger than what was run; of CUDA, not this memory."""
        settings, model = self.plan.settings, self.plan.model
        batch = min(settings.batch_size, settings.sequences_per_shard)
        sequences = 0 if self.device.startswith("cuda") else max(0, batch - self.model.plan.tokens.sequences)
        further = len(settings.sites or ()) * model.d_model
        kept = len(self.plan.layers) * (model.n_heads * model.d_head + further)
        passing = 6 * model.d_model + 2 * model.n_heads * settings.seq_len  # the MLP's, attention's
        number_bytes = 4 if settings.dtype == "float32" else 2
        return sequences * settings.seq_len * (kept + passing) * number_bytes

    @property
    def costs(self) -> Costs:
        rows = self.plan.settings.rows_per_shard
        commit_s = self.disk.commit_s(self.sizes.shard_bytes, self.sizes.files_a_shard) / rows
        return Costs(
            forward_s=self.model.forward_s,
            compute_s=self.model.compute_s,
            write_s=self.codecs.encode_s + commit_s,
        )

    def fit_costs(self, layers: tuple[int, ...]) -> FitCosts:
        """Of all heads of `layers`, fitted to compressed targets."""
        names = set(probe.fit_arrays(self.plan, layers))
        num_bytes = sum(array.bytes_a_row for array in self.sizes.arrays if array.name in names)
        heads = len(layers) * self.plan.model.n_heads
        return FitCosts(
            heads=heads,
            read_s=num_bytes * self.disk.read_s_a_byte + sum(self.codecs.decode_s[name] for name in names),
            fit_s=heads * self.fit_head_s,
        )

    def save_bytes(self, layers: tuple[int, ...]) -> int:
        """Bytes of a checkpoint of a fit of all heads of `layers`, as `alens fit` makes them: what is trained, what the
        optimiser keeps of it, and the best lenses so far."""
        model = self.plan.model
        numbers = len(layers) * model.n_heads * (model.d_head + 1) * model.d_vocab
        return 4 * numbers * (1 + len(STATE) + 1)

    @property
    def tokenise_hours(self) -> float:
        return self.text.num_tokens / self.text.tokens_a_second / 3600 if self.text else 0.0

    def cache_hours(self, workers: int) -> float:
        """Until the slowest of so many workers is done; tokenising comes first, once."""
        rows = rows_of_slowest(self.shards_left, workers, self.plan.settings.rows_per_shard)
        return self.tokenise_hours + self.costs.cache_hours(rows)


def estimate_cache(
    request: CacheRequest,
    *,
    store: Path | None,
    workers: int = 1,
    max_minutes: float | None = None,
    probe_s: float = 5.0,
    report: Report = silent,
) -> Estimate:
    """Estimate the cache of `request` in `store`, or with None in the current directory's file system.

    Raises what `alens cache` would raise for this request. Writes nothing, but for a file without a name
    that tries the disk.
    """
    if workers < 1:
        raise RequestError(f"workers is {workers}: it must be at least 1")
    if not probe_s > 0:
        raise RequestError(f"probe_seconds is {probe_s}: it must be above 0")
    threads, load = follow_allotment(), os.getloadavg()[0]
    source = models.find(request.model, request.revision, report=report)
    check_settings(request.settings, source)
    stored = _stored(request, source, store)
    model = models.load(source, dtype=request.settings.dtype, device=request.device, report=report)
    found: text.TextEstimate | None = None
    if stored is None:
        corpus = texts.resolve(request.corpus, request.options)
        found = _tokenise(request, corpus, model, probe_s, report)
        plan = _plan(request, source, corpus, found, model.end_of_text)
        tokens_BT = _sequences(found.first, plan)
        report(Progress(stage="examining the model"))
        model_record = examine(model, tokens_BT, request.settings.layers)
        say(model_record)
        plan = dataclasses.replace(plan, model=model_record)
    else:
        plan = stored.plan
        tokens_BT = stored.tokens[: plan.settings.sequences_per_shard]
    steps = _Steps(report)
    model_rates = probe.model_rates(model, plan, tokens_BT, probe_s)
    steps.done("codecs")
    codecs = probe.codec_rates(model_rates)
    steps.done("fit")
    fit_head_s = probe.fit_s(model_rates, model.device, probe_s)
    steps.done("disk")
    folder = disk.nearest_folder(store) if store is not None else Path.cwd()
    rates = disk.probe(folder, probe_s)
    steps.done("")
    sizes = sizes_of(plan, codecs.stored_share)
    done = len(stored.shards) if stored else 0
    return Estimate(
        plan=plan,
        device=str(model.device),
        text=found,
        shards_done=done,
        workers=workers,
        max_minutes=max_minutes,
        sizes=sizes,
        model=model_rates,
        codecs=codecs,
        disk=rates,
        fit_head_s=fit_head_s,
        threads=threads,
        load=load,
        room=_room(folder, sizes, plan.num_shards - done, skeleton=stored is None),
    )


def _stored(request: CacheRequest, source: models.ModelSource, store: Path | None) -> Cache | None:
    """The cache in STORE, if there is one. Raises `RequestError` where `alens cache` would not write."""
    if store is None:
        return None
    if (store / "plan.json").exists():
        stored_plan(request, source, texts.resolve(request.corpus, request.options))
        return open_cache(store)
    check_place(store)
    return None


def _tokenise(
    request: CacheRequest,
    corpus: texts.Corpus,
    model: models.LoadedModel,
    probe_s: float,
    report: Report,
) -> text.TextEstimate:
    settings = request.settings
    return text.estimate(
        TextTokens(
            corpus=corpus,
            tokenizer=model.tokenizer,
            end_of_text=model.end_of_text,
            dtype=token_dtype(model.source.record.d_vocab),
            num_tokens=model.source.record.d_vocab,
        ),
        enough=None if settings.sequences_wanted is None else settings.sequences_wanted * settings.seq_len,
        keep=settings.rows_per_shard,
        probe_s=probe_s,
        report=report,
    )


def _plan(
    request: CacheRequest,
    source: models.ModelSource,
    corpus: texts.Corpus,
    found: text.TextEstimate,
    end_of_text: int | None,
) -> Plan:
    known = corpus.record.knows_documents
    division = _division(found, request, known)
    check_fills_a_shard(corpus.record.id, found.num_tokens, division, request.settings)
    return Plan(
        model=source.record,
        corpus=corpus.record,
        settings=request.settings,
        tokens=TokensRecord(
            sha256=NOT_HASHED,
            sequences=division.sequences,
            sequences_left_out=division.left_out,
            tokenizer_sha256=source.tokenizer_sha256,
            end_of_text=end_of_text,
            documents_sha256=NOT_HASHED if known else None,
            documents=None if not known or found.lengths_D is None else len(found.lengths_D),
            held_out_sequences=division.held_out_sequences if known else None,
            selection="spread" if division.spread else None,
        ),
        created=software(),
    )


def _division(found: text.TextEstimate, request: CacheRequest, known: bool) -> Division:
    """What `alens cache` would take, by document where the whole text was read; else as many tokens without them."""
    if found.lengths_D is not None:
        return divide(found.lengths_D, request.settings, documents_known=known)
    division = divide(np.array([found.num_tokens]), request.settings, documents_known=False)
    a_shard = request.settings.sequences_per_shard
    held_out = held_out_shards(division.sequences // a_shard) * a_shard if known else 0
    return dataclasses.replace(
        division, train_sequences=division.sequences - held_out, held_out_sequences=held_out
    )


def _sequences(first: npt.NDArray[Any], plan: Plan) -> npt.NDArray[Any]:
    """The first tokens as sequences: at most a shard, at least one."""
    T = plan.settings.seq_len
    whole = max(1, min(len(first) // T, plan.settings.sequences_per_shard))
    return np.resize(first, (whole, T))


def _room(folder: Path, sizes: Sizes, shards_left: int, *, skeleton: bool) -> Room:
    free_bytes, free_inodes, block_bytes = disk.free(folder)
    return Room(
        where=str(folder),
        needed_bytes=sizes.bytes_to_write(shards_left, block_bytes, skeleton) + SPARE_BYTES,
        free_bytes=free_bytes,
        needed_inodes=sizes.inodes_to_write(shards_left, skeleton),
        free_inodes=free_inodes,
    )


class _Steps:
    """Tells the watcher which probe comes next."""

    def __init__(self, report: Report) -> None:
        self._report, self._done = report, -1
        self.done(PROBES[0])

    def done(self, following: str) -> None:
        self._done += 1
        self._report(
            Progress(stage="probe", done=self._done, total=len(PROBES), unit="probes", note=following)
        )
