"""A cache -> the same rows in other forms, as a cache of its own, without the model.

In: committed shards and layers of a cache, and the forms of z and targets to write. Out: a sealed cache with a plan of
its own (its settings and tokens differ), read and checked like any other. z is what stage one would write from the
stored z, bit for bit; statistics are of the z that will be read; targets are computed from the exact teacher. What keeps
its form is copied.
Shapes: N rows, H heads, E d_head, B sequences, T tokens.
"""

import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.fidelity.forms import TargetForm, ZForm, rounded, stored_targets, stored_z
from alens.fidelity.target_error import ExactDistributions, remade_targets, tail_uniforms
from alens.job.progress import ShouldStop, never
from alens.rows import moments
from alens.store import durable
from alens.store.arrays import scale_name, shard_arrays, site_name, statistic_name, weight_arrays
from alens.store.cache_reader import Cache, open_cache
from alens.store.durable import write_errors
from alens.store.encoding import Float16, dequantise, quantise
from alens.store.paths import StorePaths
from alens.store.schema import CacheSettings, Plan
from alens.store.values import Array
from alens.store.writer import ShardWriter, put_manifest, put_skeleton

Arrays = dict[str, npt.NDArray[Any]]


def reencode(
    source: Cache,
    root: Path,
    *,
    shards: Sequence[int],
    layers: Sequence[int],
    z: ZForm | None = None,
    targets: TargetForm | None = None,
    exact_teacher: bool = True,
    device: torch.device | None = None,
    should_stop: ShouldStop = never,
) -> Cache | None:
    """Write a sealed cache of some shards and layers of `source` into `root`; None when `should_stop` says so.

    `z` and `targets` default to the stored forms. The exact teacher is kept where the cache has it and `exact_teacher`
    asks for it. Further sites are left out. Raises `RequestError` for other targets without the exact teacher.
    """
    settings = source.plan.settings
    z, targets = z or stored_z(settings), targets or stored_targets(settings)
    if targets != stored_targets(settings) and not settings.exact_teacher:
        raise RequestError(
            f"{source.root} holds no exact teacher: targets other than {stored_targets(settings).name} cannot be made from it"
        )
    tokens = _sequences(source.tokens, source.plan, shards)
    documents = None
    if source.token_documents is not None:
        documents = _sequences(source.token_documents, source.plan, shards)
    chosen = targets.put_into(z.put_into(settings))
    plan = dataclasses.replace(
        source.plan,
        settings=dataclasses.replace(
            chosen,
            layers=tuple(layers),
            sites=None,
            max_rows=len(shards) * settings.rows_per_shard,
            exact_teacher=settings.exact_teacher and exact_teacher,
            final_moments=None,
        ),
        tokens=dataclasses.replace(
            source.plan.tokens,
            sha256=hashlib.sha256(tokens).hexdigest(),
            sequences=len(shards) * settings.sequences_per_shard,
            sequences_left_out=0,
            **_documents_record(source.plan, shards, documents),
        ),
        created={**source.plan.created, "derived_from": source.plan.identity},
    )
    with write_errors(root):
        root.mkdir(parents=True)
    paths = StorePaths(root)
    with write_errors(root):
        _put_npy(source.paths.tokens, paths.tokens, tokens, plan.tokens.sha256 == source.plan.tokens.sha256)
        if documents is not None:
            same = plan.tokens.documents_sha256 == source.plan.tokens.documents_sha256
            _put_npy(source.paths.documents, paths.documents, documents, same)
    put_skeleton(
        root, plan, {name: source.weights(name.removeprefix("model/")) for name in weight_arrays(plan)}
    )
    work = _Reencoding(source, plan, device or torch.device("cpu"), should_stop)
    writer = ShardWriter(root, plan)
    for place, shard in enumerate(shards):
        writer.check_space()
        arrays = work.arrays(shard, place)
        if arrays is None:
            return None
        note = {
            "rows": settings.rows_per_shard,
            "derived_from": source.plan.identity,
            "shard_of_source": shard,
        }
        writer.write(place, arrays, note)
    put_manifest(root, plan, open_cache(root).files_by_shard())
    return open_cache(root)


def _sequences(values_BT: Array, plan: Plan, shards: Sequence[int]) -> bytes:
    """The bytes of a .npy file that holds the sequences of `shards` only, of tokens or of their documents."""
    size = plan.settings.sequences_per_shard
    kept_BT = np.concatenate([values_BT[shard * size : (shard + 1) * size] for shard in shards])
    file = io.BytesIO()
    np.save(file, kept_BT, allow_pickle=False)
    return file.getvalue()


def _documents_record(plan: Plan, shards: Sequence[int], documents: bytes | None) -> dict[str, Any]:
    """What the plan of these shards says of documents. Held-out documents stay held out if their shards come last."""
    if documents is None:
        return {}
    held_out = [shard in plan.shards_of_held_out_documents for shard in shards]
    kept = sum(held_out) if held_out == sorted(held_out) else 0
    return {
        "documents_sha256": hashlib.sha256(documents).hexdigest(),
        "documents_taken": None,
        "documents_held_out": None,
        "held_out_sequences": kept * plan.settings.sequences_per_shard,
    }


def _put_npy(source: Path, path: Path, content: bytes, same: bool) -> None:
    """Link the file of the source if it holds the same bytes; else write `content`."""
    if same:
        try:
            os.link(source, path)
            return
        except OSError:  # another file system, or one without hard links
            pass
    durable.put(path, content)


class _Reencoding:
    """Makes the arrays of the derived plan, a shard at a time."""

    def __init__(self, source: Cache, plan: Plan, device: torch.device, should_stop: ShouldStop) -> None:
        self.source, self.plan, self.should_stop = source, plan, should_stop
        stored: CacheSettings = source.plan.settings
        self.z, self.targets = stored_z(plan.settings), stored_targets(plan.settings)
        self.same_z = self.z == stored_z(stored)
        self.same_targets = self.targets == stored_targets(stored)
        self.exact = None if self.same_targets else ExactDistributions.of(source, device)

    def arrays(self, shard: int, place: int) -> Arrays | None:
        """All arrays of `shard` of the source, which becomes shard `place`; None when `should_stop` says so."""
        settings = self.plan.settings
        arrays: Arrays = {}
        if not self.same_targets:
            made = self._targets(shard)
            if made is None:
                return None
            arrays.update(made)
        position_N = self.source.read_shard("rows/position", shard)
        if not self.same_z:
            for layer in self.plan.layers:
                if self.should_stop():
                    return None
                arrays.update(self._z(layer, shard, position_N > 0))
        for name, spec in shard_arrays(self.plan).items():
            if name not in arrays:
                arrays[name] = self.source.read_shard(name, shard)
            arrays[name] = arrays[name].astype(spec.dtype, copy=False)
        moved = (place - shard) * settings.sequences_per_shard
        sequence_N = arrays["rows/sequence"].astype(np.int64) + moved
        arrays["rows/sequence"] = sequence_N.astype(np.uint32)
        return arrays

    def _targets(self, shard: int) -> Arrays | None:
        assert self.exact is not None
        T = self.plan.settings.seq_len
        sequence_N = self.source.read_shard("rows/sequence", shard).astype(np.int64)
        row_numbers_N = sequence_N * T + self.source.read_shard("rows/position", shard)
        uniforms_NM = tail_uniforms(self.source.plan, row_numbers_N, self.targets.tail_samples)
        final_ND: Array = self.source.read_shard("targets/final", shard)
        made = remade_targets(self.targets, final_ND, self.exact, uniforms_NM, self.should_stop)
        if made is None:
            return None
        return {
            "targets/ids": made.ids_NK,
            "targets/log_probs": made.log_probs_NK,
            "targets/logsumexp": made.logsumexp_N,
            "targets/entropy": made.entropy_N,
            "targets/tail_ids": made.tail_ids_NM,
        }

    def _z(self, layer: int, shard: int, counted_N: npt.NDArray[np.bool_]) -> Arrays:
        size = self.plan.settings.rows_per_shard
        z_NHE: Float16 = self.source.z(layer, slice(shard * size, (shard + 1) * size))
        arrays: Arrays = {}
        if self.z.z_dtype == "int8":
            arrays[site_name(layer)], arrays[scale_name(layer)] = quantise(z_NHE)
            read_NHE = dequantise(arrays[site_name(layer)], arrays[scale_name(layer)])
        else:
            assert self.z.keep_bits is not None, "a finer form than the stored cannot be had"
            read_NHE = arrays[site_name(layer)] = rounded(z_NHE, self.z.keep_bits, layer)
        # As in stage one: over rows at position 1 and later, in float64, of z as it will be read.
        z_HNE = read_NHE[counted_N].astype(np.float64).swapaxes(0, 1)
        sum_HE, outer_HEE = moments.sums(z_HNE)
        arrays[statistic_name(layer, "sum")] = sum_HE[None]
        arrays[statistic_name(layer, "outer")] = outer_HEE[None]
        return arrays
