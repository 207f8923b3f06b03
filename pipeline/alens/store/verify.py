"""Read every byte of a cache and name what is not as it was written.

In: a cache directory, finished or in the making. Out: findings (damaged, missing, foreign, unfinished), one
at a time, and how much was read. Every document must give its own hash, every file the SHA-256 that a
document holds of it, and the documents must fit each other: the plan says which arrays there are, the
records which files, the manifest which records. What can be checked without a damaged document is checked.
Nothing is written: `repair.py` queues what was found.
"""

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.progress import Report, ShouldStop, never, silent
from alens.store.commits import fingerprint
from alens.store.findings import RERUN, Finding, Trouble, files_of, read_document
from alens.store.foreign import (
    Known,
    leftovers,
    shard_keys,
    shard_of_name,
    shard_of_plan,
    skeleton_keys,
)
from alens.store.hashing import Job, check_files
from alens.store.metadata import differs
from alens.store.paths import DOCUMENTS, MANIFEST, PARTS, PLAN, SKELETON, TOKENS, StorePaths
from alens.store.repair import unless_linked
from alens.store.schema import Plan

RECORD = re.compile(r"\d{6,}\.json")

Found = Callable[[Finding], None]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check of a whole cache came to."""

    findings: tuple[Finding, ...]
    files: int
    """Files that were checked, documents included."""
    bytes: int
    """Bytes that were hashed."""
    seconds: float
    shards_committed: int
    shards_missing: int | None
    """Not committed yet, or no longer; None where neither plan nor manifest says how many there are to be."""

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    @property
    def whole(self) -> bool:
        return not any(finding.fails for finding in self.findings)


def verify(
    root: Path, *, found: Found = lambda _: None, report: Report = silent, should_stop: ShouldStop = never
) -> Verdict:
    """Check the cache in `root`; `found` is told each finding at once, those of documents first.

    Raises `RequestError` when there is no cache or one of another format, `StoppedError` when asked to stop.
    """
    started = time.monotonic()
    if not any(os.path.lexists(root / part) for part in PARTS):
        raise RequestError(
            f"{root} is no cache (it has no plan.json): give a directory that `alens cache` wrote"
        )
    check = _Check(root)
    findings = []
    for seen in check.findings(report, should_stop):
        finding = unless_linked(root, seen)
        findings.append(finding)
        found(finding)
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

    def __init__(self, root: Path) -> None:
        self.root, self.paths = root, StorePaths(root)
        self.files = self.bytes = 0
        self.plan: Plan | None = None
        self.plan_content = b""
        self.plan_trouble: Trouble | None = None
        self.identity: str | None = None
        self.shards: int | None = None
        self.documents: dict[str, tuple[dict[str, Any] | None, bytes, Trouble | None]] = {}
        self.committed: dict[int, dict[str, Any]] = {}
        """Files by shard, of whole records."""
        self.known: set[str] = {PLAN, TOKENS, SKELETON, MANIFEST}
        self._named_shards: set[int] = set()
        self._jobs: list[Job] = []

    def findings(self, report: Report, should_stop: ShouldStop) -> Iterator[Finding]:
        self._read_plan()
        self.documents[MANIFEST] = read_document(self.paths.manifest)  # first: what it speaks of is older
        for path in (SKELETON, *self._record_paths()):
            self.documents[path] = read_document(self.root / path)
        self._settle_identity()
        yield from self._plan()
        self._tokens()
        yield from self._skeleton()
        yield from self._records()
        yield from self._manifest()
        yield from self._hash(report, should_stop)
        shard_of = shard_of_name if self.plan is None else shard_of_plan(self.plan)
        known = Known(frozenset(self.known), shard_of, frozenset(self._named_shards), self.plan is not None)
        yield from leftovers(self.root, known)

    # What the documents say

    def _read_plan(self) -> None:
        body, self.plan_content, self.plan_trouble = read_document(self.paths.plan)
        if body is not None:
            try:
                self.plan = Plan.from_json(self.plan_content, str(self.paths.plan))
                self.identity, self.shards = self.plan.identity, self.plan.num_shards
            except DamageError:
                self.plan_trouble = Trouble("damaged", "its contents do not give its identity")
        self.files += self.plan_trouble is None or self.plan_trouble.kind == "damaged"

    def _record_paths(self) -> list[str]:
        """Of all shards that there are to be. Without plan and manifest only the folder can say."""
        manifest, _, _ = self.documents[MANIFEST]
        if self.plan is None and manifest is not None and isinstance(manifest.get("shards"), int):
            self.shards = manifest["shards"]
        if self.shards is not None:
            paths = [self.paths.record(shard) for shard in range(self.shards)]
            return [path.relative_to(self.root).as_posix() for path in paths]
        with contextlib.suppress(OSError):
            names = sorted(path.name for path in self.paths.commits.iterdir())
            return [f"commits/{name}" for name in names if RECORD.fullmatch(name)]
        return []

    def _settle_identity(self) -> None:
        """Without a plan: the one that most documents carry."""
        if self.plan is None:
            bodies = [body for body, _, _ in self.documents.values() if body is not None]
            carried = Counter(str(body.get("plan")) for body in bodies).most_common(1)
            self.identity = carried[0][0] if carried else None

    def _plan(self) -> Iterator[Finding]:
        if self.plan_trouble is None:
            return
        mend = f"{RERUN} with the same arguments: it makes the plan anew"
        if self.plan_trouble.kind == "missing" and not self._committed_anything:
            what = "is not there yet: a job is making the plan, or was stopped before"
            yield Finding(kind="unfinished", path=PLAN, what=what, mend=f"harmless: {RERUN}")
            return
        if self.plan_trouble.kind == "damaged":
            mend = "--repair removes it; `alens cache` with the same arguments makes it anew"
        yield self.plan_trouble.finding(PLAN, mend, (PLAN,) if self.plan_trouble.kind == "damaged" else ())

    def _tokens(self) -> None:
        """Their hashes stand in the plan."""
        if self.plan is None:
            return
        mend = "--repair removes it; `alens cache` with the same arguments makes it anew"
        recorded = {TOKENS: self.plan.tokens.sha256, DOCUMENTS: self.plan.tokens.documents_sha256}
        for name, sha256 in recorded.items():
            if sha256 is None:
                continue
            self.known.add(name)
            size = 0
            with contextlib.suppress(OSError):
                size = (self.root / name).stat().st_size
            self._jobs.append(Job(name, {"sha256": sha256}, PLAN, self.plan_content, size, mend, (name,)))

    def _document(self, path: str, mend: str, queue: tuple[str, ...]) -> Iterator[Finding]:
        """What is wrong with a document as such; nothing when it is of this plan."""
        body, _, trouble = self.documents[path]
        if trouble is None and body is not None and body.get("plan") != self.identity:
            trouble = Trouble("damaged", "is of another plan")
        self.files += trouble is None or trouble.kind == "damaged"
        if trouble is not None:
            yield trouble.finding(path, mend, queue)

    def _skeleton(self) -> Iterator[Finding]:
        mend = "--repair removes it; `alens cache` rewrites the metadata and the model's weights"
        expected = None if self.plan is None else skeleton_keys(self.plan)
        self.known |= {f"arrays.zarr/{key}" for key in expected or ()}
        body, content, trouble = self.documents[SKELETON]
        if trouble is not None and trouble.kind == "missing":
            if self.plan is not None or self._committed_anything:
                yield trouble.finding(
                    SKELETON, f"{RERUN}: it rewrites the metadata and the model's weights", ()
                )
            return
        faults = list(self._document(SKELETON, mend, (SKELETON,)))
        files = files_of(body) if body is not None and not faults else None
        if not faults and (files is None or expected not in (None, set(files))):
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

    @property
    def _committed_anything(self) -> bool:
        """Whether there is a document, whole or not, that no job writes before the plan."""
        troubles = [trouble for path, (_, _, trouble) in self.documents.items() if path != SKELETON]
        return any(trouble is None or trouble.kind == "damaged" for trouble in troubles)

    def _records(self) -> Iterator[Finding]:
        manifest, _, _ = self.documents[MANIFEST]
        sealed = manifest is not None and manifest.get("plan") == self.identity
        for path, (body, content, trouble) in self.documents.items():
            if path in (MANIFEST, SKELETON):
                continue
            shard = int(path.removeprefix("commits/").removesuffix(".json"))
            expected = None if self.plan is None else shard_keys(self.plan, shard)
            queue = (MANIFEST, path)
            mend = f"--repair queues shard {shard}; `alens cache` rewrites it"
            if trouble is not None and trouble.kind == "missing":
                if sealed:
                    what = f"is not there, and the manifest says that shard {shard} is committed"
                    yield Trouble("missing", what).finding(path, mend, (MANIFEST,))
                    self.known |= {f"arrays.zarr/{key}" for key in expected or ()}
                    self._named_shards.add(shard)
                continue
            self.known |= {path, *(f"arrays.zarr/{key}" for key in expected or ())}
            faults = list(self._document(path, mend, queue))
            files = files_of(body) if body is not None and not faults else None
            if not faults and (files is None or body is None or body.get("shard") != shard):
                faults = [Trouble("damaged", "is the record of another shard").finding(path, mend, queue)]
            elif not faults and expected not in (None, set(files or ())):
                faults = [Trouble("damaged", _misnamed(files, expected)).finding(path, mend, queue)]
            yield from faults
            if faults or files is None:
                self._named_shards.add(shard)
                continue
            self.committed[shard] = files
            self.known |= {f"arrays.zarr/{key}" for key in files}
            for key, file in files.items():
                self._jobs.append(Job(f"arrays.zarr/{key}", file, path, content, file["bytes"], mend, queue))

    def _manifest(self) -> Iterator[Finding]:
        body, _, trouble = self.documents[MANIFEST]
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

    # What the files hold

    def _hash(self, report: Report, should_stop: ShouldStop) -> Iterator[Finding]:
        for job, trouble in check_files(self.root, self._jobs, report, should_stop):
            trouble = trouble or self._meaning(job)
            self.files += trouble is None or trouble.kind == "damaged"
            self.bytes += job.size
            if trouble is not None and trouble.kind == "missing" and job.path in (TOKENS, DOCUMENTS):
                yield trouble.finding(job.path, f"{RERUN}: it makes it anew", ())
            elif trouble is not None:
                yield trouble.finding(job.path, job.mend, job.queue)

    def _meaning(self, job: Job) -> Trouble | None:
        """Metadata that agree with their record, but not with the plan, would change every number."""
        if self.plan is None or job.owner != SKELETON or not job.path.endswith("/zarr.json"):
            return None
        key = job.path.removeprefix("arrays.zarr/")
        with contextlib.suppress(OSError):
            if differs(self.plan, key, (self.root / job.path).read_bytes()):
                return Trouble("damaged", "does not describe the array that the plan makes")
        return None


def _misnamed(files: Mapping[str, Any] | None, expected: set[str] | None) -> str:
    """In what a record's files are not those of the plan."""
    if files is None or expected is None:
        return "names no files"
    lacking, more = sorted(expected - files.keys()), sorted(files.keys() - expected)
    return f"lacks {lacking[0]}" if lacking else f"names {more[0]}, which the plan does not have"
