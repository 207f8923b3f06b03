"""What `alens verify` checks of what was measured of heads beside a cache: effects and Jacobians.

In: a cache directory. Out: findings about records, and files to hash. They are not part of what seals a cache: where they
are damaged the cache is not whole all the same, and the command that measured them does so again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alens.store import typed
from alens.store.effect_files import EffectFiles
from alens.store.findings import Finding, Trouble, read_document
from alens.store.hashing import Job
from alens.store.head_files import ARRAY_NAME, HeadFiles
from alens.store.jacobian_files import JacobianFiles
from alens.store.paths import REACHES


@dataclass(kw_only=True)
class MeasuredCheck:
    """What was measured beside one cache, as far as its records tell."""

    findings: list[Finding] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Files that belong to the format, relative to the cache: also arrays that were not committed, which count for
    nothing."""
    documents: int = 0
    """Records that could be read."""


def check_measured(root: Path, identity: str | None) -> MeasuredCheck:
    """Read the records of all that was measured; `identity` is that of the cache's plan, None where it is not known."""
    check, plan = MeasuredCheck(), identity or ""
    kinds: list[HeadFiles[Any]] = [EffectFiles(root, plan)]
    kinds += [JacobianFiles(root, plan, reach) for reach in REACHES]
    for files in kinds:
        for shard in files.shards():
            folder = files.folder_of_shard(shard)
            arrays = {path for path in folder.iterdir() if ARRAY_NAME.fullmatch(path.name)}
            check.known |= {path.relative_to(root).as_posix() for path in arrays}
            for record in files.records(shard):
                _record(check, files, root, record, shard, identity)
    return check


def _record(
    check: MeasuredCheck, files: HeadFiles[Any], root: Path, path: Path, shard: int, identity: str | None
) -> None:
    mend = f"--repair queues it; `{files.COMMAND}` measures it again"
    name, array = (file.relative_to(root).as_posix() for file in (path, path.with_suffix(".npy")))
    check.known |= {name, array}
    body, content, trouble = read_document(path)
    check.documents += trouble is None or trouble.kind == "damaged"
    if body is not None and trouble is None:
        if (what := typed.wrong(files.RECORD, body)) is not None:
            trouble = Trouble("damaged", f"is not whole ({what})")
        elif identity is not None and body["plan"] != identity:
            trouble = Trouble("damaged", "is of another plan")
        elif path != files.path(body["shard"], body["layer"], body["heads"]) or body["shard"] != shard:
            trouble = Trouble("damaged", "is the record of other numbers")
    if trouble is not None:
        check.findings.append(trouble.finding(name, mend, (name,)))
    elif body is not None:
        file = body["file"]
        check.jobs.append(Job(array, file, name, content, file["bytes"], mend, (name,)))
