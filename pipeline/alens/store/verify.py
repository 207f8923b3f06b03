"""Reads every byte of a cache and names what differs from what was written.

In: a cache directory, finished or in the making, or an address. Out: findings (damaged, missing, foreign, unfinished), one
at a time, and how much was read. Every document must give its own hash, every file the SHA-256 that a
document holds of it, and the documents must fit each other: the plan says which arrays there are, the
records which files, the manifest which records. What can be checked without a damaged document is checked.
Nothing is written: `repair.py` queues what is to be rewritten.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.remote.address import address
from alens.store import metadata
from alens.store.commits import fingerprint
from alens.store.findings import RERUN, Finding, Trouble
from alens.store.foreign import (
    Known,
    other_entries,
    shard_keys,
    shard_of_name,
    shard_of_plan,
    skeleton_keys,
)
from alens.store.hashing import Job, check_files
from alens.store.head_check import check_measured
from alens.store.paths import DOCUMENTS, MANIFEST, PARTS, PLAN, SKELETON, TOKENS, StorePaths, no_cache
from alens.store.read_documents import Documents
from alens.store.repair import unless_linked
from alens.store.verdict import Verdict as Verdict
from alens.store.verify_far import FarCache, far_cache


def verify_cache(
    root: str | Path,
    *,
    on_finding: Callable[[Finding], None] = lambda _: None,
    report: Report = silent,
    should_stop: ShouldStop = never,
) -> Verdict:
    """Check the cache in `root`. `on_finding` is called with each finding at once, first those of documents.

    Raises `RequestError` when there is no cache or one of another format, `StoppedError` when asked to stop.
    """
    if (remote := address(root)) is not None:
        report(Progress(stage="reading documents"))
        with far_cache(remote) as far:
            return _verified(far.root, far, on_finding, report, should_stop)
    root = Path(root)
    if not any(os.path.lexists(root / part) for part in PARTS):
        raise RequestError(no_cache(root))
    return _verified(root, None, on_finding, report, should_stop)


def _verified(
    root: Path,
    far: FarCache | None,
    on_finding: Callable[[Finding], None],
    report: Report,
    should_stop: ShouldStop,
) -> Verdict:
    started = time.monotonic()
    report(Progress(stage="reading records"))
    check = _Check(root, far)
    findings = []
    for seen in check.findings(report, should_stop):
        finding = unless_linked(root, seen)
        findings.append(finding)
        on_finding(finding)
    return Verdict(
        findings=tuple(findings),
        files=check.files,
        bytes=check.bytes,
        seconds=time.monotonic() - started,
        shards_committed=len(check.committed),
        shards_missing=None if check.shards is None else check.shards - len(check.committed),
    )


class _Check:
    """One pass over a cache. Documents are read first, so that the bytes to hash are known."""

    def __init__(self, root: Path, far: FarCache | None = None) -> None:
        """`far` reads the files of a cache that is elsewhere; `root` has its documents."""
        self._far = far
        self.root, self.paths, self.read = root, StorePaths(root), Documents(root)
        self.plan, self.shards, self.specs = self.read.plan, self.read.shards, self.read.specs
        self.bytes = 0
        trouble = self.read.plan_trouble
        self.files = int(trouble is None or trouble.kind == "damaged")
        self.committed: dict[int, dict[str, Any]] = {}
        """The files of each shard whose record is whole."""
        self.known: set[str] = {PLAN, TOKENS, SKELETON, MANIFEST}
        self._named_shards: set[int] = set()
        """Shards whose record is damaged, as a finding says."""
        self._jobs: list[Job] = []

    def findings(self, report: Report, should_stop: ShouldStop) -> Iterator[Finding]:
        yield from self._plan()
        self._tokens()
        yield from self._skeleton()
        yield from self._records()
        yield from self._manifest()
        yield from self._measured()
        yield from self._hash(report, should_stop)
        shard_of = shard_of_name if self.plan is None else shard_of_plan(self.plan)
        known = Known(frozenset(self.known), shard_of, self._is_named, self.plan is not None)
        yield from other_entries(self.root, known) if self._far is None else self._far.other_entries(known)

    # What the documents say

    def _plan(self) -> Iterator[Finding]:
        if self.read.plan_trouble is None:
            return
        mend = f"{RERUN} with the same arguments: it makes the plan anew"
        if self.read.plan_trouble.kind == "missing" and not self.read.committed_anything:
            what = "is not there yet: a job is making the plan, or was stopped before"
            yield Finding(kind="unfinished", path=PLAN, what=what, mend=f"harmless: {RERUN}")
            return
        if self.read.plan_trouble.kind == "damaged":
            mend = "--repair removes it; `alens cache` with the same arguments makes it anew"
        yield self.read.plan_trouble.finding(
            PLAN, mend, (PLAN,) if self.read.plan_trouble.kind == "damaged" else ()
        )

    def _tokens(self) -> None:
        """The hashes of the tokens are in the plan."""
        if self.plan is None:
            return
        mend = "--repair removes it; `alens cache` with the same arguments makes it anew"
        recorded = {TOKENS: self.plan.tokens.sha256, DOCUMENTS: self.plan.tokens.documents_sha256}
        for name, sha256 in recorded.items():
            if sha256 is None:
                continue
            self.known.add(name)
            size = 0 if self._far is None else self._far.size(name)
            with contextlib.suppress(OSError):
                size = size or (self.root / name).stat().st_size
            self._jobs.append(
                Job(name, {"sha256": sha256}, PLAN, self.read.plan_content, size, mend, (name,))
            )

    def _document(self, path: str, mend: str, queue: tuple[str, ...]) -> Iterator[Finding]:
        """What is wrong with a document by itself. Nothing, if it belongs to this plan and its fields are possible."""
        trouble = self.read.trouble(path)
        self.files += trouble is None or trouble.kind == "damaged"
        if trouble is not None:
            yield trouble.finding(path, mend, queue)

    def _skeleton(self) -> Iterator[Finding]:
        mend = "--repair removes it; `alens cache` rewrites the metadata and the model's weights"
        expected = None if self.plan is None else skeleton_keys(self.specs)
        self.known |= {f"arrays.zarr/{key}" for key in expected or ()}
        body, content, trouble = self.read.by_path[SKELETON]
        if trouble is not None and trouble.kind == "missing":
            if self.plan is not None or self.read.committed_anything:
                yield trouble.finding(
                    SKELETON, f"{RERUN}: it rewrites the metadata and the model's weights", ()
                )
            return
        faults = list(self._document(SKELETON, mend, (SKELETON,)))
        files = body["files"] if body is not None and not faults else None
        if files is not None and expected not in (None, set(files)):
            faults = [Trouble("damaged", _misnamed(files, expected)).finding(SKELETON, mend, (SKELETON,))]
        yield from faults
        if faults or files is None:
            return
        self.known |= {f"arrays.zarr/{key}" for key in files}
        mend = "--repair queues it; `alens cache` rewrites the metadata and the model's weights"
        for key, file in files.items():
            self._jobs.append(
                Job(f"arrays.zarr/{key}", file, SKELETON, content, file["bytes"], mend, (SKELETON,))
            )

    def _records(self) -> Iterator[Finding]:
        before = -1
        for shard, path in self.read.records().items():
            yield from self._lost(before + 1, shard)
            yield from self._record(shard, path)
            before = shard
        if self.shards is not None:
            yield from self._lost(before + 1, self.shards)

    def _lost(self, first: int, stop: int) -> Iterator[Finding]:
        """One finding for a stretch of shards that the manifest calls committed but that have no record."""
        if not self.read.sealed or first >= stop:
            return
        what = f"is not there, and the manifest says that shard {first} is committed"
        if stop - first > 1:
            what += f", as are {first + 1} to {stop - 1}, which have no record either"
        mend = f"--repair queues shard {first}; `alens cache` rewrites it"
        path = self.paths.record(first).relative_to(self.root).as_posix()
        yield Trouble("missing", what).finding(path, mend, (MANIFEST,))

    def _record(self, shard: int, path: str) -> Iterator[Finding]:
        body, content, trouble = self.read.by_path[path]
        if trouble is not None and trouble.kind == "missing":  # a worker has just taken it away
            yield from self._lost(shard, shard + 1)
            return
        expected = None if self.plan is None else shard_keys(self.specs, shard)
        queue = (MANIFEST, path)
        mend = f"--repair queues shard {shard}; `alens cache` rewrites it"
        self.known |= {path, *(f"arrays.zarr/{key}" for key in expected or ())}
        faults = list(self._document(path, mend, queue))
        files = body["files"] if body is not None and not faults else None
        if body is not None and files is not None and body["shard"] != shard:
            faults = [Trouble("damaged", "is the record of another shard").finding(path, mend, queue)]
        elif files is not None and expected not in (None, set(files)):
            faults = [Trouble("damaged", _misnamed(files, expected)).finding(path, mend, queue)]
        yield from faults
        if faults or files is None:
            self._named_shards.add(shard)
            return
        self.committed[shard] = files
        self.known |= {f"arrays.zarr/{key}" for key in files}
        for key, file in files.items():
            self._jobs.append(Job(f"arrays.zarr/{key}", file, path, content, file["bytes"], mend, queue))

    def _is_named(self, shard: int) -> bool:
        """Whether a finding already says that the record of a shard is damaged or missing."""
        return shard in self._named_shards or (self.read.sealed and shard not in self.committed)

    def _manifest(self) -> Iterator[Finding]:
        body, _, trouble = self.read.by_path[MANIFEST]
        all_there = self.shards is not None and len(self.committed) == self.shards
        if trouble is not None and trouble.kind == "missing":
            if all_there and self.plan is not None:
                what = "is not there, though all shards are committed"
                yield Finding(
                    kind="unfinished", path=MANIFEST, what=what, mend=f"harmless: {RERUN}: it seals the cache"
                )
            return
        mend = "--repair removes it; `alens cache` writes it anew"
        faults = list(self._document(MANIFEST, mend, (MANIFEST,)))
        if not faults and body is not None:
            what = ""
            if self.plan is not None and (body.get("shards"), body.get("rows")) != (
                self.plan.num_shards,
                self.plan.rows,
            ):
                what = "does not say what the plan says of shards and rows"
            elif all_there and body.get("fingerprint") != fingerprint(self.committed):
                what = "its fingerprint is not that of the records"
            if what:
                faults = [Trouble("damaged", what).finding(MANIFEST, mend, (MANIFEST,))]
        yield from faults

    def _measured(self) -> Iterator[Finding]:
        measured = check_measured(self.root, self.read.identity)
        self.files += measured.documents
        self.known |= measured.known
        self._jobs += measured.jobs
        yield from measured.findings

    # What the files hold

    def _hash(self, report: Report, should_stop: ShouldStop) -> Iterator[Finding]:
        for job, trouble in check_files(
            self.root, self._jobs, report, should_stop, None if self._far is None else self._far.look
        ):
            trouble = trouble or self._meaning(job)
            self.files += trouble is None or trouble.kind == "damaged"
            self.bytes += job.size
            if trouble is not None and trouble.kind == "missing" and job.path in (TOKENS, DOCUMENTS):
                yield trouble.finding(job.path, f"{RERUN}: it makes it anew", ())
            elif trouble is not None:
                yield trouble.finding(job.path, job.mend, job.queue)

    def _meaning(self, job: Job) -> Trouble | None:
        """Whether metadata agree with the plan. Metadata that agree only with their record would change every
        number."""
        if self.plan is None or job.owner != SKELETON or not job.path.endswith("/zarr.json"):
            return None
        key = job.path.removeprefix("arrays.zarr/")
        with contextlib.suppress(OSError):
            if metadata.differs(self.plan, self.specs, key, metadata.content(self.root / job.path)):
                return Trouble("damaged", metadata.NOT_THE_PLANS)
        return None


def _misnamed(files: Mapping[str, Any], expected: set[str] | None) -> str:
    """How the files of a record differ from those of the plan."""
    assert expected is not None
    lacking, more = sorted(expected - files.keys()), sorted(files.keys() - expected)
    return f"lacks {lacking[0]}" if lacking else f"names {more[0]}, which the plan does not have"
