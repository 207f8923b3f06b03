"""What fitting and judging read of a shard: columns of rows in memory, and tensors from them.

In: a cache, a site and heads. Out: `Columns` (numpy arrays by name), and from any stretch of them the values of
the site and the teacher, on a device.
Shapes: N rows, H heads, E width of the site's values (d_head for z, d_model for others).
"""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.machine.device import send
from alens.rows.teacher import CompressedTeacher, ExactTeacher, Teacher
from alens.store.arrays import scale_name, site_name
from alens.store.cache_reader import Cache, Targets
from alens.store.schema import ATTN_Z
from alens.store.values import Array

T = TypeVar("T")

MOST_THREADS = 4
"""Arrays that are read at once, at most: each takes room for its rows once more while it is decoded. More would wait for
zarr, whose own part runs in one thread (docs/decisions/0068)."""


class Narrowing(Protocol):
    """Reduces targets as if fewer entries had been cached."""

    def apply(self, targets: Targets, rows_N: npt.NDArray[np.int64]) -> Targets: ...


@dataclasses.dataclass(frozen=True)
class Columns:
    """Some rows of the arrays that are read, in memory."""

    by_name: dict[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.by_name.values())))

    def rows(self, start: int, stop: int) -> "Columns":
        return Columns({name: values[start:stop] for name, values in self.by_name.items()})

    def lanes(self, lanes: int, start: int, stop: int) -> list["Columns"]:
        """Rows `start` to `stop - 1` of each of `lanes` equal stretches."""
        size = len(self) // lanes
        return [self.rows(lane * size + start, lane * size + stop) for lane in range(lanes)]

    @classmethod
    def join(cls, parts: "Sequence[Columns]") -> "Columns":
        if len(parts) == 1:
            return parts[0]
        return cls({name: np.concatenate([p.by_name[name] for p in parts]) for name in parts[0].by_name})


class RowReader:
    """Reads the arrays that fitting and judging need, and turns their rows into tensors."""

    def __init__(
        self,
        cache: Cache,
        heads: Heads,
        teacher: str,
        min_position: int,
        device: torch.device,
        *,
        site: str = ATTN_Z,
        columns: Sequence[str] = (),
        narrow: Narrowing | None = None,
        sequences_B: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`columns` are arrays to read beside values and targets; `narrow` makes compressed targets smaller;
        `sequences_B` (B,) says which sequences of the cache have usable rows; None for all.

        Raises `RequestError` when the cache lacks a layer, a head, the site or the exact teacher.
        """
        cache.check_rows()
        cache.check_layers(heads.layers)
        cache.check_site(site)
        cache.check_heads(heads.columns if site == ATTN_Z else ())
        if teacher == "exact" and not cache.plan.settings.exact_teacher:
            raise RequestError(
                f"{cache.root} holds no exact teacher: cache with --exact-teacher, or fit with --teacher compressed"
            )
        settings = cache.plan.settings
        if not 0 <= min_position < settings.seq_len:
            raise RequestError(
                f"min_position is {min_position}: sequences of {cache.root} have positions 0 to {settings.seq_len - 1}"
            )
        self.cache, self.layers, self.heads, self.device = cache, heads.layers, heads, device
        self.min_position, self.exact, self.site = min_position, teacher == "exact", site
        self.narrow, self._sequences_B = narrow, sequences_B
        places = ("rows/sequence", "rows/position") if narrow else ()
        self.columns = tuple(dict.fromkeys((*columns, *places)))
        self.rows_per_shard = settings.sequences_per_shard * (settings.seq_len - min_position)
        self._all_heads = tuple(range(cache.plan.model.n_heads))
        self._threads = min(MOST_THREADS, torch.get_num_threads())

    def num_rows(self, shards: Sequence[int]) -> int:
        """How many usable rows these shards have."""
        if self._sequences_B is None:
            return len(shards) * self.rows_per_shard
        settings = self.cache.plan.settings
        size = settings.sequences_per_shard
        sequences = sum(int(self._sequences_B[shard * size : (shard + 1) * size].sum()) for shard in shards)
        return sequences * (settings.seq_len - self.min_position)

    @cached_property
    def unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`W_U` (D, V) and `b_U` (V,), read when they are first needed."""
        W_U_DV, b_U_V = (
            torch.from_numpy(self.cache.weights(name)).to(self.device) for name in ("W_U", "b_U")
        )
        return W_U_DV, b_U_V

    def names(self) -> list[str]:
        """The arrays that are read."""
        targets = (
            ["final", "entropy"] if self.exact else ["ids", "log_probs", "logsumexp", "entropy", "tail_ids"]
        )
        return [
            *(site_name(layer, self.site) for layer in self.layers),
            *(f"targets/{name}" for name in targets),
            *self.columns,
        ]

    def _read(self, name: str, rows: slice) -> Array:
        """Stored rows of an array: z decoded, and only the heads of this reader."""
        for layer in self.layers:
            if name == site_name(layer, self.site):
                if self.site != ATTN_Z:
                    return self.cache.site(self.site, layer, rows)[:, None]
                z_NHE, heads = self.cache.z(layer, rows), self.heads.by_layer[layer]
                return z_NHE if heads == self._all_heads else z_NHE[:, heads]
        return self.cache.read(name, rows)

    def shard(
        self,
        shard: int,
        *more: str,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Columns:
        """Usable rows `start` to `stop - 1` of a shard, default all; `more` names further arrays to read.

        Only the stored rows between the first and the last usable one are read. Files are compared with the hashes in
        the shard's record, once in each process; processes that read parts of one shard divide the files by rank.
        Several arrays are read at once, by as many threads as torch has, at most four. Raises `DamageError` for a file that
        is not the one that was committed: the first of them in the order of names.
        """
        names = list(dict.fromkeys((*self.names(), *more)))
        checked = [*names, *self._scales()][rank::world_size]
        self._each(checked, lambda name: self.cache.check_files(shard, [name]))
        usable_N = self.cache.read_shard("rows/position", shard) >= self.min_position
        if self._sequences_B is not None:
            usable_N &= self._sequences_B[self.cache.read_shard("rows/sequence", shard)]
        usable = np.flatnonzero(usable_N)[start:stop]
        first, last = (int(usable[0]), int(usable[-1]) + 1) if len(usable) else (0, 0)
        offset = shard * self.cache.plan.settings.rows_per_shard
        rows, keep = slice(offset + first, offset + last), usable - first
        read = self._each(names, lambda name: self._read(name, rows)[keep])
        return Columns(dict(zip(names, read, strict=True)))

    def _each(self, names: Sequence[str], work: Callable[[str], T]) -> list[T]:
        """`work` for each array, in order; several at once. The first error in this order ends it, and what waits is
        dropped."""
        if (threads := min(self._threads, len(names))) < 2:
            return [work(name) for name in names]
        with ThreadPoolExecutor(threads, thread_name_prefix="alens-array") as pool:
            return list(pool.map(work, names))

    def _scales(self) -> list[str]:
        """The scales that decode z, where it is stored as int8."""
        if self.site != ATTN_Z or self.cache.plan.settings.z_dtype != "int8":
            return []
        return [scale_name(layer) for layer in self.layers]

    def z(self, columns: Columns, layer: int) -> torch.Tensor:
        """(N, H, E) float16 values of the site, on the device; contiguous however they were read."""
        return send(np.ascontiguousarray(columns.by_name[site_name(layer, self.site)]), self.device)

    def teacher(self, columns: Columns) -> Teacher:
        """The rows' model distributions, on the device."""
        stored = {name.removeprefix("targets/"): values for name, values in columns.by_name.items()}
        if self.exact:
            final, entropy = (send(stored[name], self.device) for name in ("final", "entropy"))
            return ExactTeacher(final, *self.unembedding, entropy, cap=self.cache.plan.model.logit_cap)
        targets = Targets(
            ids_NK=stored["ids"],
            log_probs_NK=stored["log_probs"],
            logsumexp_N=stored["logsumexp"],
            entropy_N=stored["entropy"],
            tail_ids_NM=stored["tail_ids"],
        )
        if self.narrow:
            sequence, position = (
                columns.by_name[f"rows/{name}"].astype(np.int64) for name in ("sequence", "position")
            )
            targets = self.narrow.apply(targets, sequence * self.cache.plan.settings.seq_len + position)
        return CompressedTeacher.from_targets(targets, self.device)
