"""What `alens verify` checks of the measured effects of heads beside a cache.

In: a cache directory. Out: findings about records, and files to hash. Effects are not part of what seals a cache: where
they are damaged the cache is not whole all the same, and `alens effects` measures them again.
"""

from dataclasses import dataclass, field
from pathlib import Path

from alens.store import typed
from alens.store.effect_files import ARRAY_NAME, EffectFiles, EffectRecord
from alens.store.findings import Finding, Trouble, read_document
from alens.store.hashing import Job

MEND = "--repair queues it; `alens effects` measures it again"


@dataclass(kw_only=True)
class EffectCheck:
    """The effects beside one cache, as far as their records tell."""

    findings: list[Finding] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Files that belong to the format, relative to the cache: also arrays that were not committed, which count for
    nothing."""
    documents: int = 0
    """Records that could be read."""


def check_effects(root: Path, identity: str | None) -> EffectCheck:
    """Read the records of all effects; `identity` is that of the cache's plan, None where it is not known."""
    check = EffectCheck()
    files = EffectFiles(root, identity or "")
    for shard in files.shards():
        folder = files.folder_of_shard(shard)
        arrays = {path for path in folder.iterdir() if ARRAY_NAME.fullmatch(path.name)}
        check.known |= {path.relative_to(root).as_posix() for path in arrays}
        for record in files.records(shard):
            _record(check, files, root, record, shard, identity)
    return check


def _record(
    check: EffectCheck, files: EffectFiles, root: Path, path: Path, shard: int, identity: str | None
) -> None:
    name, array = (file.relative_to(root).as_posix() for file in (path, path.with_suffix(".npy")))
    check.known |= {name, array}
    body, content, trouble = read_document(path)
    check.documents += trouble is None or trouble.kind == "damaged"
    if body is not None and trouble is None:
        if (what := typed.wrong(EffectRecord, body)) is not None:
            trouble = Trouble("damaged", f"is not whole ({what})")
        elif identity is not None and body["plan"] != identity:
            trouble = Trouble("damaged", "is of another plan")
        elif path != files.path(body["shard"], body["layer"], body["heads"]) or body["shard"] != shard:
            trouble = Trouble("damaged", "is the record of other effects")
    if trouble is not None:
        check.findings.append(trouble.finding(name, MEND, (name,)))
    elif body is not None:
        file = body["file"]
        check.jobs.append(Job(array, file, name, content, file["bytes"], MEND, (name,)))
