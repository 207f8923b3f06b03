"""Whole caches in each encoding, for tests of `verify` and `repair`."""

from pathlib import Path
from typing import Any

from alens.store import document
from alens.store.findings import Finding
from alens.store.schema import Plan
from alens.store.verify import Verdict, verify_cache
from alens.store.writer import ShardWriter

ENCODINGS: dict[str, dict[str, Any]] = {
    "float16": {"exact_teacher": True},
    "keep_bits": {"keep_bits": 3, "sites": ("resid_post",)},
    "int8": {"z_dtype": "int8"},
}
Z = "arrays.zarr/sites/attn.z/00"

QUEUED = {
    "plan.json": ["plan.json"],
    "tokens.npy": ["tokens.npy"],
    "MANIFEST.json": ["MANIFEST.json"],
    "commits/model.json": ["commits/model.json"],
    "commits/000001.json": ["MANIFEST.json", "commits/000001.json"],
    f"{Z}/c.1.0.0": ["MANIFEST.json", "commits/000001.json"],
    "arrays.zarr/stats/output/c.2.0": ["MANIFEST.json", "commits/000002.json"],
    f"{Z}/zarr.json": ["commits/model.json"],
    "arrays.zarr/model/W_U/c.0.0": ["commits/model.json"],
}
"""What repair moves aside for a damaged or missing file."""


def write(root: Path, plan: Plan, values: Any, shard: int) -> None:
    ShardWriter(root, plan).write(shard, values(plan, shard), {"note": "by a test"})


def short(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in verdict.findings]


def only(root: Path) -> Finding:
    """The only finding of a cache."""
    verdict = verify_cache(root)
    assert len(verdict.findings) == 1, verdict.findings
    return verdict.findings[0]


def edit(path: Path, **changes: Any) -> None:
    """Changes a document, with the right hash of its new contents."""
    path.write_bytes(document.encode({**document.decode(path.read_bytes(), "it"), **changes}))
