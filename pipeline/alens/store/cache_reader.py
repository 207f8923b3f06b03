"""Reads a cache as numpy arrays: committed shards only, and checked.

In: a cache directory. Out: rows of any array by name; `Targets`; head outputs `a = z W_O`; sums of
statistics over shards. A missing, cut or altered file is an error that names it; Zarr alone would read a
missing shard as fill values.

Shapes: N rows, L layers, H heads, E d_head, D d_model, K top-k, M tail samples, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.errors import DamageError, RequestError
from alens.store import document
from alens.store.arrays import SITES, WRITE_SCALE, ArraySpec, all_arrays, scale_name, site_name
from alens.store.checked_arrays import CheckedArrays
from alens.store.commits import Commits
from alens.store.document import MEND
from alens.store.encoding import dequantise
from alens.store.model_record import OTHER_WRITE
from alens.store.paths import StorePaths, no_cache
from alens.store.schema import ATTN_Z, FURTHER_SITES, Plan
from alens.store.stage import Stage, open_stage
from alens.store.stage_settings import StageSettings
from alens.store.token_file import token_file
from alens.store.values import Array

Rows = slice | npt.NDArray[np.integer[Any]]

ENOUGH_SHARDS = 256
"""Moments of so many shards are enough for every use of them, and limit what is read before the work."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The compressed final distribution of N rows."""

    ids_NK: Array
    """(N, K) unsigned: the most probable next tokens, most probable first."""
    log_probs_NK: Array
    """(N, K) float16: their log-probabilities."""
    logsumexp_N: Array
    """(N,) float32: the logsumexp of the final logits."""
    entropy_N: Array
    """(N,) float32: the entropy of the whole distribution, nats."""
    tail_ids_NM: Array
    """(N, M) unsigned: draws from the distribution outside the top k, each worth 1/M of its mass."""


class Cache:
    """An open cache. It keeps no file open, and is cheap to make.

    Attributes: `root` (its directory, or its address), `plan`, `commits` (its records), `sealed` (the manifest says that all shards are
    committed), `fingerprint` (the hash of all shard files of a sealed cache) and `shards`.
    """

    def __init__(self, root: Path | str, *, limits: bool = True, stage: Stage | None = None) -> None:
        """Open the cache in `root`, or the one that `stage` copies. Without `limits` it also returns impossible numbers.

        Raises `RequestError` when there is no cache, `DamageError` when its plan is damaged.
        """
        self.stage, self.paths = stage, StorePaths(Path(root) if stage is None else stage.root)
        self.root: Path | str = self.paths.root if stage is None else stage.where
        try:
            content = document.content(self.paths.plan)
        except (FileNotFoundError, NotADirectoryError):
            raise RequestError(no_cache(self.root)) from None
        except OSError as error:
            raise RequestError(f"cannot read {self.paths.plan}: {error.strerror}") from None
        self.plan, self._plan_as_opened = Plan.from_json(content, str(self.paths.plan)), content
        self._check_layers_are_there()
        self._specs = all_arrays(self.plan)
        self.commits = Commits(self.paths, self.plan, stage)
        self._disk = CheckedArrays(self.paths, self.plan, self.commits, limits=limits, stage=stage)
        self.fingerprint = self.commits.fingerprint()
        self.sealed = self.fingerprint is not None

    def __repr__(self) -> str:
        plan, state = self.plan, "sealed" if self.sealed else "not sealed"
        return f"<Cache {self.root}: {plan.rows:,} rows of {len(plan.layers)} layers of {plan.model.id}, {state}>"

    def _check_layers_are_there(self) -> None:
        """Raises `DamageError` for a plan with more layers than there are arrays on disk, before the plan is used."""
        folder = self.paths.arrays / ("stats" if self.plan.settings.moments_only else SITES) / ATTN_Z
        there = sum(path.is_dir() for path in folder.iterdir()) if folder.is_dir() else 0
        if len(self.plan.layers) > there:
            raise DamageError(
                f"{self.paths.plan} names {len(self.plan.layers):,} layers, and {folder} holds arrays of {there:,}: {MEND}"
            )

    # What is there

    @cached_property
    def shards(self) -> tuple[int, ...]:
        """The numbers of the committed shards, ascending, as of the first use. Reads the records of an unsealed cache.

        Raises `DamageError` where a sealed cache has fewer records than its manifest says.
        """
        if not self.sealed:
            return self.commits.committed()
        named = self.commits.named()
        if len(named) < self.plan.num_shards:
            raise DamageError(
                f"{self.paths.manifest} says that all {self.plan.num_shards:,} shards are committed, and "
                f"{self.paths.commits} holds {len(named):,} records: {MEND}"
            )
        return named

    def files_by_shard(self) -> dict[int, Mapping[str, Any]]:
        """Size and hash of every committed file, by shard."""
        self.commits.have(self.shards)
        return {shard: self.commits.record(shard)["files"] for shard in self.shards}

    # Numbers by name

    def spec(self, name: str) -> ArraySpec:
        """Shape, dtype and meaning of an array. Raises `RequestError` when the cache has no such array."""
        if name not in self._specs:
            if not name.startswith("stats/"):
                self.check_rows()
            raise RequestError(f"{self.root} has no array {name}: it has {', '.join(sorted(self._specs))}")
        return self._specs[name]

    def read(self, name: str, rows: Rows) -> Array:
        """Entries `rows` of the array `name` (rows, or shards for statistics), in the order asked for.

        Raises `RequestError` for entries out of range, `DamageError` for uncommitted or damaged shards.
        """
        spec = self.spec(name)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(spec.shape[0])
            if step == 1:
                return self._disk.span(spec, start, max(start, stop))
            rows = np.arange(start, stop, step)
        wanted = np.asarray(rows)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < spec.shape[0]):
            raise RequestError(
                f"{name} of {self.root} has entries 0 to {spec.shape[0] - 1}: {wanted.min()} to {wanted.max()} were asked for"
            )
        shard_of = wanted // spec.rows_per_shard
        shards = np.unique(shard_of)
        for shard in shards:  # before memory is taken for them
            self._disk.check_file(spec, int(shard), whole=False)
        out = np.empty((len(wanted), *spec.shape[1:]), dtype=spec.dtype)
        for shard in shards:
            here = np.flatnonzero(shard_of == shard)
            first, last = int(wanted[here].min()), int(wanted[here].max())
            out[here] = self._disk.span(spec, first, last + 1)[wanted[here] - first]
        return out

    def read_shard(self, name: str, shard: int) -> Array:
        """All entries of one shard of an array."""
        size = self.spec(name).rows_per_shard
        return self.read(name, slice(shard * size, (shard + 1) * size))

    def weights(self, name: str) -> Array:
        """`W_O` (L, H, E, D), `W_U` (D, V), `b_U` (V), `norm_gain` or `norm_offset` (D), float32.

        Raises `RequestError` where the cache does not hold it: older caches lack the last norm.
        """
        return self._disk.weights(self.spec(f"model/{name}"))

    def check_files(self, shard: int, names: Sequence[str]) -> None:
        """Compare whole files of a shard with the hashes in its record, each file once in a process. Raises `DamageError`."""
        specs = [self.spec(name) for name in names]
        self._disk.have(specs, shard)
        for spec in specs:
            self._disk.check_file(spec, shard, whole=True)

    def check_unchanged(self) -> None:
        """Read the plan and the records that were used again. Raises `DamageError` where they have changed.

        Copies of a cache that is elsewhere do not change: each was compared with the record that was used.
        """
        try:
            same = self.paths.plan.read_bytes() == self._plan_as_opened
        except OSError:
            same = False
        if not (same and self.commits.unchanged()):
            raise DamageError(
                f"{self.root} is not the cache that was opened: it was exchanged or removed while it was read; "
                "nothing that was read is used, run again on one cache"
            )

    # What the numbers mean

    def check_rows(self) -> None:
        """Raises `RequestError` for a cache of moments alone."""
        if self.plan.settings.moments_only:
            raise RequestError(f"{self.root} was cached with --moments-only: take a cache with rows")

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises `RequestError` for a layer that is not cached."""
        for layer in layers:
            if layer not in self.plan.layers:
                raise RequestError(
                    f"layer {layer} is not in {self.root}: it holds layers {', '.join(map(str, self.plan.layers))}"
                )

    def check_heads(self, heads: Sequence[int]) -> None:
        """Raises `RequestError` for a head that does not exist."""
        for head in heads:
            if not 0 <= head < self.plan.model.n_heads:
                raise RequestError(
                    f"head {head} does not exist: {self.plan.model.id} has heads 0 to {self.plan.model.n_heads - 1}"
                )

    def check_site(self, site: str) -> None:
        """Raises `RequestError` for a site that is not cached."""
        if site not in (ATTN_Z, *FURTHER_SITES):
            raise RequestError(f"there is no site {site}: name {', '.join((ATTN_Z, *FURTHER_SITES))}")
        if site not in (ATTN_Z, *(self.plan.settings.sites or ())):
            raise RequestError(f"{self.root} does not hold {site}: cache with --sites {site}")

    def z(self, layer: int, rows: Rows) -> Array:
        """(N, H, E) float16: what each head of `layer` mixes before W_O, decoded where it is stored as int8."""
        self.check_layers([layer])
        values = self.read(site_name(layer), rows)
        if self.plan.settings.z_dtype == "int8":
            return dequantise(values, self.read(scale_name(layer), rows))
        return values

    def site(self, site: str, layer: int, rows: Rows) -> Array:
        """(N, D) float16: `resid_post` or `mlp_out` of `layer`. Raises `RequestError` where it is not cached."""
        self.check_layers([layer])
        self.check_site(site)
        return self.read(site_name(layer, site), rows)

    def head_outputs(
        self, rows: Rows, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> Array:
        """(N, L, H, D) float32: what each head writes into the residual stream, z W_O, behind the norm where there is one.

        `layers` and `heads` default to all that are cached. Raises `RequestError` for a model whose heads write something else.
        """
        if self.plan.model.head_write == OTHER_WRITE:
            raise RequestError(f"{self.root} gives no head outputs: {self.plan.model.no_write}; take z")
        self.check_layers(layers := list(self.plan.layers if layers is None else layers))
        self.check_heads(heads := list(range(self.plan.model.n_heads) if heads is None else heads))
        W_O_LHED = self.weights("W_O")
        scale_NL = self.read(WRITE_SCALE, rows) if self.plan.model.keeps_write_scale else None
        outputs = []
        for layer in layers:
            z_NHE = self.z(layer, rows)[:, heads].astype(np.float32)
            if scale_NL is not None:
                z_NHE /= scale_NL[:, self.plan.layers.index(layer), None, None]
            outputs.append(np.matmul(z_NHE.swapaxes(0, 1), W_O_LHED[layer, heads]).swapaxes(0, 1))
        return np.stack(outputs, axis=1)

    def targets(self, rows: Rows) -> Targets:
        """The compressed final distributions of `rows`."""
        return Targets(
            ids_NK=self.read("targets/ids", rows),
            log_probs_NK=self.read("targets/log_probs", rows),
            logsumexp_N=self.read("targets/logsumexp", rows),
            entropy_N=self.read("targets/entropy", rows),
            tail_ids_NM=self.read("targets/tail_ids", rows),
        )

    def log_mean_output(self, shards: Sequence[int]) -> npt.NDArray[np.float32]:
        """(V,) the log of the model's mean output over the first `ENOUGH_SHARDS` of `shards`."""
        return log_shares(self.summed("stats/output", shards[:ENOUGH_SHARDS]))

    def summed(self, name: str, shards: Sequence[int]) -> Array:
        """The sum of a statistic over shards, one shard in memory at a time."""
        total: Any = 0.0
        for shard in shards:
            total = total + self.read_shard(name, shard)[0]
        return np.asarray(total)

    @cached_property
    def tokens(self) -> Array:
        """(sequences, seq_len) token ids, in the order they were run; memory-mapped, hash checked."""
        return self._npy(self.paths.tokens, self.plan.tokens.sha256, self.plan.model.d_vocab)

    @cached_property
    def token_documents(self) -> Array | None:
        """(sequences, seq_len) uint32: the document of each token, by its number in the text, from 0.

        End-of-text belongs to the document that it opens. None where documents are not known; memory-mapped, hash checked.
        """
        sha256, count = self.plan.tokens.documents_sha256, self.plan.tokens.documents
        return None if sha256 is None else self._npy(self.paths.documents, sha256, count, "documents")

    @cached_property
    def documents(self) -> npt.NDArray[np.int64] | None:
        """(sequences,) int64: the document in which each sequence begins; None where documents are not known."""
        return None if self.token_documents is None else self.token_documents[:, 0].astype(np.int64)

    def _npy(self, path: Path, sha256: str, count: int | None, what: str = "tokens") -> Array:
        if self.stage is not None:
            self.stage.have_sound(path.name, {"sha256": sha256})
        return token_file(path, self.plan, sha256, count, what)


def log_shares(output_V: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(V,) log of each token's share of summed distributions.

    A token that never had any probability gets the smallest positive number of float32.
    """
    shares_V = output_V / output_V.sum()
    log_V: npt.NDArray[np.float32] = np.log(np.maximum(shares_V, np.finfo(np.float32).tiny)).astype(
        np.float32
    )
    return log_V


def open_cache(path: Path | str, stage: StageSettings | None = None) -> Cache:
    """Open a cache that `alens cache` wrote or is still writing; its committed shards can be read.

    `path` is its directory or address (s3://BUCKET/PREFIX, https://HOST/PATH), `stage` says where copies are kept.
    """
    copies = open_stage(path, stage or StageSettings())
    return Cache(path) if copies is None else Cache(copies.root, stage=copies)
