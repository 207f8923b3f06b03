"""Queue what `verify` found for rewriting: `alens cache` writes what has no record.

In: a cache directory and findings. Out: the documents that make damaged files count are gone (the record of
a shard and the manifest, the record of the metadata and weights, a damaged document itself), and partial
files that nobody writes to. Nothing else is touched: no number, no foreign file.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from alens.store import durable
from alens.store.durable import write_errors
from alens.store.findings import Finding

FIRST = "MANIFEST.json"
"""Removed first: no cache is sealed while a record of it is missing."""


def repair(root: Path, findings: Sequence[Finding]) -> list[str]:
    """Remove what `findings` queue, durably; the paths that were there, relative to `root`.

    Raises `RunError` when the system refuses.
    """
    queued = {path for finding in findings for path in finding.queue}
    removed = []
    with write_errors(root):
        for path in sorted(queued, key=lambda path: (path != FIRST, path)):
            if os.path.lexists(root / path):
                durable.remove(root / path)
                removed.append(path)
    return removed
