"""`alens plan`: what a cache would take, measured and computed before anything is written.

In: the request that `alens cache` would take. Out: an `Estimate`. The request is checked as `alens cache`
checks it. Where STORE holds a plan already, its tokens are used and only the missing shards count.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.cache.held_out_documents import Division, divide, held_out_shards
from alens.cache.prepare import check_place, stored_plan
from alens.cache.request import CacheRequest, check_settings, with_bos
from alens.cache.target_compression import logits_dtype
from alens.cache.token_sequences import check_fills_a_shard
from alens.errors import RequestError
from alens.heads import HeadNames
from alens.job.progress import Progress, Report, silent
from alens.machine.allotment import follow_allotment, free_bytes
from alens.machine.device import torch_device
from alens.machine.software import software
from alens.model import models
from alens.model.examine import examine, tell
from alens.planning import disk, token_count
from alens.planning.budget import Budget
from alens.planning.codec_rates import codec_rates
from alens.planning.disk import DiskSpace
from alens.planning.fit_heads import heads_to_fit
from alens.planning.fit_rates import fit_rates
from alens.planning.model_rates import model_rates
from alens.planning.result import Estimate
from alens.planning.sizes import Sizes, sizes_of
from alens.planning.token_count import TextEstimate
from alens.store import final_moments
from alens.store.arrays import token_dtype
from alens.store.cache_reader import Cache, open_cache
from alens.store.schema import Plan, TokensRecord
from alens.store.writer import SPARE_BYTES
from alens.text import corpus as texts
from alens.text.text_tokens import TextTokens

NOT_HASHED = "not written"
"""A placeholder in the plan for the hashes of files that are not written yet."""

PROBES = ("model", "codecs", "fit", "disk")

PROBE_S = 15.0
"""CPU seconds of a plan, besides those of imports: 20 in all."""

EXAMINED_TOKENS = 16
"""Tokens that the model is examined on; `alens cache` takes whole sequences."""

TEXT_SHARE, MODEL_SHARE, FIT_SHARE = 0.15, 0.5, 0.85
"""What each probe may use of what those before it have left."""

DISK_S = 2.0
"""Seconds that the disk is written and read at most; it takes hardly any CPU time."""


def estimate_cache(
    request: CacheRequest,
    *,
    store: Path | None,
    workers: int = 1,
    max_minutes: float | None = None,
    heads: HeadNames | None = None,
    probe_s: float = PROBE_S,
    report: Report = silent,
) -> Estimate:
    """Estimate the cache of `request` in `store`, or on the file system of the current directory if that is None.

    `heads` are those to fit, by default all that are cached. `probe_s` are CPU seconds that loading the model and all
    measurements may take together, roughly: the smallest pieces are always measured. Raises what `alens cache` would raise
    for this request, and `RequestError` for heads that the cache would not hold. Writes nothing but a file without a name,
    to measure the disk.
    """
    if workers < 1:
        raise RequestError(f"workers is {workers}: it must be at least 1")
    if not probe_s > 0:
        raise RequestError(f"probe_seconds is {probe_s}: it must be above 0")
    budget = Budget(probe_s)
    threads, load = follow_allotment(), os.getloadavg()[0]
    begun = store is not None and (store / "plan.json").exists()
    free_memory_bytes = free_bytes(torch_device(request.device))
    source = models.find(request.model, request.revision, report=report, hash_weights=begun)
    check_settings(request.settings, source)
    stored = _stored(request, source, store)
    model = models.load(source, dtype=request.settings.dtype, device=request.device, report=report)
    text: TextEstimate | None = None
    if stored is None:
        corpus = texts.resolve(request.corpus, request.options)
        settings, bos = with_bos(request.settings, model)
        request = dataclasses.replace(request, settings=settings)
        text = _tokenise(request, corpus, model, budget.part(TEXT_SHARE), report)
        plan = _plan(request, source, corpus, text, model.end_of_text, bos)
        tokens_BT = _sequences(text.first, plan)
        report(Progress(stage="examining the model"))
        model_record = examine(model, tokens_BT[:1, :EXAMINED_TOKENS], request.settings.layers)
        tell(model_record, request.settings.layers)
        plan = dataclasses.replace(plan, model=model_record)
    else:
        plan = stored.plan
        tokens_BT = stored.tokens[: plan.settings.sequences_per_shard]
    chosen = heads_to_fit(plan, heads)
    steps = _Steps(report)
    of_model = model_rates(model, plan, tokens_BT, budget.part(MODEL_SHARE))
    steps.done("codecs")
    codecs = codec_rates(of_model, plan.settings.rows_per_shard)
    steps.done("fit")
    of_fit = None if plan.settings.moments_only else fit_rates(model, of_model, budget.part(FIT_SHARE))
    steps.done("disk")
    folder = disk.nearest_folder(store) if store is not None else Path.cwd()
    disk_rates = disk.probe(folder, min(probe_s, DISK_S))
    steps.done("")
    sizes = sizes_of(plan, codecs.stored_share)
    done = len(stored.shards) if stored else 0
    return Estimate(
        plan=plan,
        heads=chosen,
        device=str(model.device),
        text=text,
        shards_done=done,
        workers=workers,
        max_minutes=max_minutes,
        sizes=sizes,
        model=of_model,
        codecs=codecs,
        disk=disk_rates,
        fit=of_fit,
        threads=threads,
        load=load,
        free_memory_bytes=free_memory_bytes,
        space=_space(folder, sizes, plan.num_shards - done, skeleton=stored is None),
    )


def _stored(request: CacheRequest, source: models.ModelSource, store: Path | None) -> Cache | None:
    """The cache in STORE, if there is one. Raises `RequestError` where `alens cache` would refuse to write."""
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
    budget: Budget,
    report: Report,
) -> TextEstimate:
    settings = request.settings
    return token_count.estimate(
        TextTokens(
            corpus=corpus,
            tokenizer=model.tokenizer,
            end_of_text=model.end_of_text,
            dtype=token_dtype(model.source.record.d_vocab),
            num_tokens=model.source.record.d_vocab,
        ),
        enough=None if settings.sequences_wanted is None else settings.sequences_wanted * settings.text_len,
        keep=settings.rows_per_shard,
        budget=budget,
        report=report,
    )


def _plan(
    request: CacheRequest,
    source: models.ModelSource,
    corpus: texts.Corpus,
    text: TextEstimate,
    end_of_text: int | None,
    bos: int | None,
) -> Plan:
    known = corpus.record.knows_documents
    division = _division(text, request, known)
    check_fills_a_shard(corpus.record.id, text.num_tokens, division, request.settings)
    return Plan(
        model=source.record,
        corpus=corpus.record,
        settings=final_moments.resolved(request.settings, source.record.d_model),
        target_logits=logits_dtype(request.settings),
        tokens=TokensRecord(
            sha256=NOT_HASHED,
            sequences=division.sequences,
            sequences_left_out=division.left_out,
            tokenizer_sha256=source.tokenizer_sha256,
            end_of_text=end_of_text,
            bos=bos,
            documents_sha256=NOT_HASHED if known else None,
            documents=None if not known or text.lengths_D is None else len(text.lengths_D),
            held_out_sequences=division.held_out_sequences if known else None,
            selection="spread" if division.spread else None,
        ),
        created=software(),
    )


def _division(text: TextEstimate, request: CacheRequest, known: bool) -> Division:
    """How `alens cache` would divide the text: by document if all of it was read, otherwise by the number of tokens."""
    if text.lengths_D is not None:
        return divide(text.lengths_D, request.settings, documents_known=known)
    division = divide(np.array([text.num_tokens]), request.settings, documents_known=False)
    a_shard = request.settings.sequences_per_shard
    held_out = held_out_shards(division.sequences // a_shard) * a_shard if known else 0
    return dataclasses.replace(
        division, train_sequences=division.sequences - held_out, held_out_sequences=held_out
    )


def _sequences(first: npt.NDArray[Any], plan: Plan) -> npt.NDArray[Any]:
    """The first tokens as (sequences, T): at most one shard, at least one sequence."""
    T, bos = plan.settings.text_len, plan.tokens.bos
    whole = max(1, min(len(first) // T, plan.settings.sequences_per_shard))
    tokens_BT = np.resize(first, (whole, T))
    return tokens_BT if bos is None else np.insert(tokens_BT, 0, bos, axis=1)


def _space(folder: Path, sizes: Sizes, shards_left: int, *, skeleton: bool) -> DiskSpace:
    free_bytes, free_inodes, block_bytes = disk.free(folder)
    return DiskSpace(
        where=str(folder),
        needed_bytes=sizes.bytes_to_write(shards_left, block_bytes, skeleton) + SPARE_BYTES,
        free_bytes=free_bytes,
        needed_inodes=sizes.inodes_to_write(shards_left, skeleton),
        free_inodes=free_inodes,
    )


class _Steps:
    """Reports which probe comes next."""

    def __init__(self, report: Report) -> None:
        self._report, self._done = report, -1
        self.done(PROBES[0])

    def done(self, following: str) -> None:
        self._done += 1
        self._report(
            Progress(stage="probe", done=self._done, total=len(PROBES), unit="probes", note=following)
        )
