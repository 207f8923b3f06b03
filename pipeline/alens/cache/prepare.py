"""Everything in a cache except its shards: `tokens.npy`, the skeleton, `plan.json`. The first job makes it, once.

In: the request. Out: the plan, once all of this is there. The first job claims the work, and the others wait for it.
What is missing or damaged later is made again, and must be what the plan says.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alens.cache import token_sequences
from alens.cache.request import CacheRequest, with_bos
from alens.cache.target_compression import logits_dtype
from alens.errors import DamageError, RequestError, RunError, StoppedError
from alens.job.progress import Progress, Report, ShouldStop
from alens.machine.software import software
from alens.model import models
from alens.model.examine import examine, examine_early, tell
from alens.store import document, durable, final_moments
from alens.store.arrays import token_dtype, weight_arrays
from alens.store.cache_reader import open_cache
from alens.store.claim import BEAT_S, Claim, LostClaimError, Watch
from alens.store.commits import Commits
from alens.store.durable import PARTIAL, write_errors
from alens.store.leftovers import clear
from alens.store.model_record import ModelRecord
from alens.store.paths import ASIDE, PARTS, StorePaths
from alens.store.plan_differences import differences
from alens.store.schema import CacheSettings, Plan, TokensRecord
from alens.store.writer import check_no_links, put_skeleton
from alens.text import corpus as text
from alens.text.text_tokens import TextTokens

POLL_S = 1.0


@dataclass(frozen=True)
class Prepared:
    """A plan whose tokens and skeleton are on disk."""

    plan: Plan
    model: models.LoadedModel | None
    """The model, where it was loaded to make the plan."""


def prepare(
    request: CacheRequest, source: models.ModelSource, report: Report, should_stop: ShouldStop
) -> Prepared:
    """Make the plan, or wait for the job that makes it.

    Raises `RequestError` when STORE holds another plan or other files, `StoppedError` when asked to stop.
    """
    corpus = text.resolve(request.corpus, request.options)
    paths = StorePaths(request.store)
    watch, since = Watch(paths.claim), time.monotonic()
    while True:
        plan = stored_plan(request, source, corpus)
        check_no_links(request.store, plan)
        if plan is not None and _is_ready(paths, plan):
            return Prepared(plan, None)
        if plan is None:
            check_place(request.store)
            with write_errors(request.store):
                request.store.mkdir(parents=True, exist_ok=True)
        claim = Claim(paths.claim)
        with write_errors(request.store):
            taken = claim.take()
            if not taken and watch.is_stale():
                claim.take_over()
                taken = True
        if taken:
            try:
                with claim:
                    return _PlanMaker(request, source, corpus, claim, report, should_stop).make()
            except LostClaimError:
                continue
        holder = watch.holder()
        if should_stop():
            raise StoppedError(
                f"stopped while waiting for {holder or 'another job'} to make the plan of {request.store}; "
                "nothing is lost, run again to go on"
            )
        note = f"for {holder or 'another job'}, which makes tokens and plan"
        waited_s = round(time.monotonic() - since)
        report(Progress(stage="wait", done=waited_s, total=None, unit="s", note=note))
        time.sleep(POLL_S)


def stored_plan(request: CacheRequest, source: models.ModelSource, corpus: text.Corpus) -> Plan | None:
    """The plan in STORE, or None. Raises `RequestError` when it is not the plan of this request."""
    if not StorePaths(request.store).plan.exists():
        return None
    plan = open_cache(request.store).plan
    source = models.known_as(source, plan.model, request.store)
    differing = differences(plan, source.record, corpus.record, source.tokenizer_sha256, request.settings)
    if differing:
        raise RequestError(
            f"{request.store} holds another plan: {'; '.join(differing)}. Ask for the same, or name a new STORE"
        )
    return plan


def check_place(store: Path) -> None:
    """Raises `RequestError` unless STORE is absent, empty, or holds only files of a job that died before it wrote a
    plan."""
    if store.exists() and not store.is_dir():
        raise RequestError(f"{store} is not a directory: name a directory for the cache")
    with write_errors(store):
        names = [path.name for path in store.iterdir()] if store.exists() else []
    foreign = [name for name in names if name not in (*PARTS, ASIDE) and not name.endswith(PARTIAL)]
    if foreign:
        raise RequestError(
            f"{store} is neither empty nor a cache (it holds {sorted(foreign)[0]}): name another directory"
        )


def _is_ready(paths: StorePaths, plan: Plan) -> bool:
    """Whether tokens and skeleton are on disk, by their sizes, and by the hash of files that say how to decode arrays."""
    skeleton = Commits(paths, plan).skeleton()
    if skeleton is None:
        return False
    try:
        if paths.tokens.stat().st_size != token_sequences.file_bytes(plan):
            return False
        if plan.tokens.documents_sha256 and paths.documents.stat().st_size != token_sequences.documents_bytes(
            plan
        ):
            return False
        for key, file in skeleton["files"].items():
            path = paths.arrays / key
            if path.stat().st_size != file["bytes"]:
                return False
            if path.suffix == ".json" and hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
                return False
    except OSError:
        return False
    return True


class _PlanMaker:
    """Makes what is missing, while this job holds the claim."""

    def __init__(
        self,
        request: CacheRequest,
        source: models.ModelSource,
        corpus: text.Corpus,
        claim: Claim,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self.request, self.source, self.corpus = request, source, corpus
        self.claim, self.report = claim, report
        self.paths = StorePaths(request.store)
        self.should_stop = _checking(claim, should_stop)

    def make(self) -> Prepared:
        """Make what is missing. Raises `LostClaimError` when another job has taken over."""
        clear(self.paths.tokens, self.paths.documents, self.paths.plan)
        stored = stored_plan(self.request, self.source, self.corpus)
        if stored is not None and _is_ready(self.paths, stored):
            return Prepared(stored, None)  # the job that held the claim before made it
        source = self.source
        if stored is not None:
            source = models.known_as(source, stored.model, self.request.store)
        model = models.load(
            source, dtype=self.request.settings.dtype, device=self.request.device, report=self.report
        )
        if stored is None:
            examine_early(model, self.request.settings.layers)
            settings, bos = with_bos(self.request.settings, model)
            record = self._write_tokens(model, settings, bos)
            tokens_BT = np.load(self.paths.tokens, mmap_mode="r", allow_pickle=False)
            self.report(Progress(stage="examining the model"))
            model_record = examine(model, tokens_BT, self.request.settings.layers)
            tell(model_record, self.request.settings.layers)
            plan = self._new_plan(model_record, settings, record)
        else:
            plan = stored
            self.report(Progress(stage="checking tokens"))
            if not self._tokens_are(plan):
                self._renew_tokens(model, plan)
        self.claim.check()
        self.report(Progress(stage="writing the plan"))
        put_skeleton(self.request.store, plan, model.weights(weight_arrays(plan), plan.model))
        return Prepared(plan, model)

    def _write_tokens(
        self, model: models.LoadedModel, settings: CacheSettings, bos: int | None
    ) -> TokensRecord:
        return token_sequences.write_tokens(
            self.paths,
            TextTokens(
                corpus=self.corpus,
                tokenizer=model.tokenizer,
                end_of_text=model.end_of_text,
                bos=bos,
                dtype=token_dtype(self.source.record.d_vocab),
                num_tokens=self.source.record.d_vocab,
            ),
            self.source.tokenizer_sha256,
            settings,
            self.report,
            self.should_stop,
        )

    def _new_plan(self, model_record: ModelRecord, settings: CacheSettings, record: TokensRecord) -> Plan:
        """The plan. Raises `RequestError` when STORE holds shards of another plan whose `plan.json` was lost."""
        plan = Plan(
            model=model_record,
            corpus=self.corpus.hashed(self.report).record,
            settings=final_moments.resolved(settings, model_record.d_model),
            tokens=record,
            target_logits=logits_dtype(settings),
            created=software(),
        )
        for path in sorted(self.paths.commits.glob("*.json")):
            try:
                theirs = document.decode(path.read_bytes(), str(path)).get("plan")
            except (OSError, DamageError):
                continue
            if theirs != plan.identity:
                raise RequestError(
                    f"{self.request.store} holds shards of plan {str(theirs)[:12]}, and what is asked for makes plan "
                    f"{plan.identity[:12]}: ask for the same as when they were written, or name a new STORE"
                )
        return plan

    def _tokens_are(self, plan: Plan) -> bool:
        """Whether `tokens.npy` and `documents.npy` have the hashes of the plan."""
        recorded = {
            self.paths.tokens: plan.tokens.sha256,
            self.paths.documents: plan.tokens.documents_sha256,
        }
        return all(
            sha256 is None or (path.is_file() and durable.sha256_of(path) == sha256)
            for path, sha256 in recorded.items()
        )

    def _renew_tokens(self, model: models.LoadedModel, plan: Plan) -> None:
        """Write the tokens again. Raises `RunError` when the text does not give the plan's tokens any more."""
        made = self._write_tokens(model, plan.settings, plan.tokens.bos)
        recorded = plan.tokens
        if (made.sha256, made.documents_sha256) == (recorded.sha256, recorded.documents_sha256):
            return
        with write_errors(self.request.store):
            durable.remove(self.paths.tokens)
            durable.remove(self.paths.documents)
        raise RunError(
            f"{self.paths.tokens} was lost, and {self.corpus.record.id} does not give the same tokens any more: "
            "restore the file or the text from a copy"
        )


def _checking(claim: Claim, should_stop: ShouldStop) -> Callable[[], bool]:
    """`should_stop`, which also checks the claim now and then."""
    looked = time.monotonic()

    def stop() -> bool:
        nonlocal looked
        if time.monotonic() - looked > BEAT_S:
            looked = time.monotonic()
            claim.check()
        return should_stop()

    return stop
