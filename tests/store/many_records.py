"""A store of very many shards, made quickly: every record is real, and a few shards have files."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alens.store import document, durable
from alens.store.paths import StorePaths
from alens.store.schema import Plan
from alens.store.writer import ShardWriter, put_skeleton

WORKERS = 1000
SHARD, WORKER = "@shard@", "@worker@"
NOTE = {
    "rows": 32,
    "seconds": 0.5,
    "finished": 1.7e9,
    "worker": f"{WORKER}/{WORKERS}",
    "alens": "0.2",
    "zarr": "3.1.6",
}


def put_many(
    root: Path,
    plan: Plan,
    values: Callable[[Plan, int], Mapping[str, Any]],
    weights: Mapping[str, Any],
    *,
    shards: int,
    with_files: tuple[int, ...],
) -> Plan:
    """An unsealed store of so many committed shards, those `with_files` with their arrays; its plan."""
    root.mkdir()
    settings = plan.settings
    sequences = shards * settings.sequences_per_shard
    tokens_BT = np.arange(sequences * settings.seq_len, dtype=np.uint16).reshape(sequences, settings.seq_len)
    np.save(root / "tokens.npy", tokens_BT % plan.model.d_vocab)
    tokens = dataclasses.replace(
        plan.tokens, sequences=sequences, sha256=durable.sha256_of(root / "tokens.npy")
    )
    plan = dataclasses.replace(plan, tokens=tokens)
    put_skeleton(root, plan, weights)
    writer = ShardWriter(root, plan)
    for shard in with_files:
        note = {**NOTE, "worker": f"{shard % WORKERS}/{WORKERS}"}
        writer.write(shard, values(plan, shard), note)
    paths = StorePaths(root)
    record = document.decode(paths.record(with_files[-1]).read_bytes(), "a record")
    text = json.dumps({**record, "shard": 0, **NOTE}, indent=1)
    text = text.replace(f"/c.{with_files[-1]}", f"/c.{SHARD}").replace('"shard": 0,', f'"shard": {SHARD},')
    folder = os.open(paths.commits, os.O_RDONLY)
    for shard in sorted({*range(shards)} - {*with_files}):
        body = text.replace(SHARD, str(shard)).replace(WORKER, str(shard % WORKERS))
        sha256 = hashlib.sha256(f"{body}\n".encode()).hexdigest()
        file = os.open(paths.record(shard).name, os.O_WRONLY | os.O_CREAT, dir_fd=folder)
        os.write(file, f'{body[:-2]},\n "sha256": "{sha256}"\n}}\n'.encode())
        os.close(file)
    os.close(folder)
    return plan


def seal(root: Path, plan: Plan) -> None:
    """The manifest, with a fingerprint that nobody compared with the records."""
    body = {
        "format": 1,
        "plan": plan.identity,
        "shards": plan.num_shards,
        "rows": plan.rows,
        "fingerprint": "0" * 64,
    }
    (root / "MANIFEST.json").write_bytes(document.encode(body))
