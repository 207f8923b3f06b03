"""What fitting and evaluating read of a shard: columns of rows in memory, and tensors from them.

In: a cache, layers and heads. Out: `Columns` (numpy, by array name), and from any stretch of them z and
the teacher on a device.
Shapes: N rows, H heads, E d_head.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.store.arrays import site_name
from alens.store.reader import Cache, Targets
from alens.teacher import CompressedTeacher, ExactTeacher, Teacher

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Some rows of the arrays that a fit reads, in memory."""

    by_name: dict[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.by_name.values())))

    def rows(self, start: int, stop: int) -> "Columns":
        return Columns({name: values[start:stop] for name, values in self.by_name.items()})

    @classmethod
    def join(cls, parts: "Sequence[Columns]") -> "Columns":
        if len(parts) == 1:
            return parts[0]
        return cls({name: np.concatenate([p.by_name[name] for p in parts]) for name in parts[0].by_name})


class RowReader:
    """Reads what a fit needs of a shard, and turns rows into tensors."""

    def __init__(
        self,
        cache: Cache,
        layers: Sequence[int],
        heads: Sequence[int],
        teacher: str,
        min_position: int,
        device: torch.device,
    ) -> None:
        """Raises `RequestError` when the cache lacks a layer, a head or the exact teacher."""
        cache.check_layers(layers)
        cache.check_heads(heads)
        if teacher == "exact" and not cache.plan.settings.exact_teacher:
            raise RequestError(
                f"{cache.root} holds no exact teacher: cache with --exact-teacher, or fit with --teacher compressed"
            )
        settings = cache.plan.settings
        if not min_position < settings.seq_len:
            raise RequestError(
                f"min_position is {min_position}: sequences of {cache.root} have positions 0 to {settings.seq_len - 1}"
            )
        self.cache, self.layers, self.heads, self.device = cache, tuple(layers), list(heads), device
        self.min_position, self.exact = min_position, teacher == "exact"
        self.rows_per_shard = settings.sequences_per_shard * (settings.seq_len - min_position)
        self._whole = list(heads) == list(range(cache.plan.model.n_heads))

    @cached_property
    def _unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`W_U` and `b_U`, read when rows first need them."""
        W_U_DV, b_U_V = (
            torch.from_numpy(self.cache.weights(name)).to(self.device) for name in ("W_U", "b_U")
        )
        return W_U_DV, b_U_V

    def names(self) -> list[str]:
        """The arrays that are read."""
        targets = (
            ["final", "entropy"] if self.exact else ["ids", "log_probs", "logsumexp", "entropy", "tail_ids"]
        )
        return [*(site_name(layer) for layer in self.layers), *(f"targets/{name}" for name in targets)]

    def _read(self, name: str, shard: int) -> Array:
        """All rows of an array of a shard; z decoded."""
        for layer in self.layers:
            if name == site_name(layer):
                settings = self.cache.plan.settings
                first = shard * settings.rows_per_shard
                return self.cache.z(layer, slice(first, first + settings.rows_per_shard))
        return self.cache.read_shard(name, shard)

    def shard(self, shard: int, *more: str) -> Columns:
        """All usable rows of a shard; `more` names arrays to read beside those of the fit."""
        keep = self.cache.read_shard("rows/position", shard) >= self.min_position
        found = {name: self._read(name, shard)[keep] for name in (*self.names(), *more)}
        if not self._whole:
            found.update({site_name(layer): found[site_name(layer)][:, self.heads] for layer in self.layers})
        return Columns(found)

    def z(self, columns: Columns, layer: int) -> torch.Tensor:
        return torch.from_numpy(columns.by_name[site_name(layer)]).to(self.device)

    def teacher(self, columns: Columns) -> Teacher:
        found = {name.removeprefix("targets/"): values for name, values in columns.by_name.items()}
        if self.exact:
            final = torch.from_numpy(found["final"]).to(self.device)
            entropy = torch.from_numpy(found["entropy"]).to(self.device)
            return ExactTeacher(final, *self._unembedding, entropy)
        targets = Targets(
            ids_NK=found["ids"],
            log_probs_NK=found["log_probs"],
            logsumexp_N=found["logsumexp"],
            entropy_N=found["entropy"],
            tail_ids_NM=found["tail_ids"],
        )
        return CompressedTeacher.from_targets(targets, self.device)
