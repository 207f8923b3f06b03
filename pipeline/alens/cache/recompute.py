"""Some rows of a cache, computed again and compared: does it hold what the model computes?

In: a cache, its model, a number of rows to pick at random. Out: for each array the largest difference beside its
tolerance (derived in `tolerance.py`), and how many tail draws float noise moved. The cache is only read. This finds
numbers that were wrong when they were written, which hashes cannot.

z is compared twice: with the model's z, and, times the stored W_O, with what attention adds (`recompute_writes.py`). A tail draw is
the token in which its threshold falls, in the distribution outside the stored top k. Near the edge of a token noise may
move the draw to the neighbour, so the threshold's distance to the stored token is compared. Sums over a shard are compared
where whole shards are computed again (`recompute_sums.py`), measured effects of heads where the cache has some
(`recompute_effects.py`).
Shapes: N rows, B sequences, T tokens, H heads, E d_head, D d_model, K top-k, M tail samples, V vocabulary.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.cache import recompute_effects, recompute_sums, recompute_targets, tolerance
from alens.cache.array_differences import ArrayDifference, LargestDifferences
from alens.cache.recompute_writes import StoredWrites
from alens.cache.request import RecomputeRequest
from alens.errors import RequestError, StoppedError
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.machine.blocks import row_blocks
from alens.machine.products import unembed
from alens.model import activations, models
from alens.result import Result
from alens.store.arrays import FINAL_SCALE, scale_name, site_name, weight_arrays
from alens.store.cache_reader import Cache
from alens.store.encoding import INT8_LARGEST, LARGEST_SCALE
from alens.store.model_record import FOLDS

MEASURED = 1e-6
"""How far two measurements of the same float32 weight may be apart, as a share."""


@dataclass(frozen=True, kw_only=True)
class Recomputed(Result):
    """The result of a comparison with the model."""

    rows: int
    shards: int
    """Whole shards whose sums were compared."""
    effects: int
    """Measured effects that were compared: heads on whole sequences."""
    comparisons: tuple[ArrayDifference, ...]
    """The largest difference of each array, in the order of their names."""
    tail_draws: int
    tail_moved: int
    """Draws that fell on another token than the stored one: float noise, unless `targets/tail_ids` disagrees."""

    @property
    def agrees(self) -> bool:
        return all(comparison.agrees for comparison in self.comparisons)

    def headline(self) -> str:
        """How many arrays agree, on how many rows."""
        agreeing = sum(comparison.agrees for comparison in self.comparisons)
        return f"{agreeing} of {len(self.comparisons)} arrays agree on {self.rows} rows"

    def to_json(self) -> dict[str, Any]:
        """The key `deep` of `alens verify --deep N --json`."""
        return {
            "rows": self.rows,
            "shards": self.shards,
            "effects": self.effects,
            "agrees": self.agrees,
            "tail_draws": self.tail_draws,
            "tail_moved": self.tail_moved,
            "arrays": self.records(),
        }

    def records(self) -> list[dict[str, Any]]:
        """One record for each array."""
        return [
            {
                "array": one.array,
                "agrees": one.agrees,
                "difference": one.difference if math.isfinite(one.difference) else None,
                "tolerance": one.tolerance,
                "row": one.row,
                "shard": one.shard,
            }
            for one in self.comparisons
        ]


@dataclass(frozen=True)
class _PickedRows:
    """Rows, by their number in the arrays, and where they come from; in the order of their sequences."""

    row_N: npt.NDArray[np.int64]
    sequence_N: npt.NDArray[np.int64]
    position_N: npt.NDArray[np.int64]

    def part(self, chosen: npt.NDArray[np.bool_]) -> "_PickedRows":
        return _PickedRows(self.row_N[chosen], self.sequence_N[chosen], self.position_N[chosen])


def recompute(
    cache: Cache,
    request: RecomputeRequest,
    *,
    report: Report = silent,
    should_stop: ShouldStop = never,
) -> Recomputed:
    """Compare the committed rows that `request` asks for, or all if there are fewer, with what the model computes, and the
    sums of as many whole shards as have so many rows; of one at least in a cache that has only sums.

    Raises `RequestError` when the model cannot be loaded or has other weights, `DamageError` for a cache that cannot be
    read, `StoppedError` when asked to stop.
    """
    if not cache.shards:
        raise RequestError(f"{cache.root} has no committed shard: nothing can be computed again")
    cache = Cache(
        cache.root, limits=False, stage=cache.stage
    )  # impossible numbers are counted as differences here, not refused
    source = models.find_again(cache.plan.model, cache.root, model=request.model, report=report)
    loaded = models.load(source, dtype=cache.plan.settings.dtype, device=request.device, report=report)
    rows = 0 if cache.plan.settings.moments_only else request.rows
    picked = _pick(cache, rows, request.seed)
    report(Progress(stage="recompute", total=len(picked.row_N), unit="rows"))
    comparer = _Comparer(cache, loaded)
    comparer.weights()
    sequences = np.unique(picked.sequence_N)
    size = cache.plan.settings.batch_size
    done = 0
    for start in range(0, len(sequences), size):
        if should_stop():
            raise StoppedError(f"stopped; {done} of {len(picked.row_N)} rows of {cache.root} were compared")
        batch = sequences[start : start + size]
        part = picked.part(np.isin(picked.sequence_N, batch))
        with torch.inference_mode():
            comparer.batch(batch, part)
        done += len(part.row_N)
        report(Progress(stage="recompute", done=done, total=len(picked.row_N), unit="rows"))
    shards = _pick_shards(cache, request)
    for number, shard in enumerate(shards):
        _compare_sums(comparer, shard, (number, len(shards)), report, should_stop)
    picked_effects = recompute_effects.pick_effects(cache, request.rows, request.seed)
    recompute_effects.compare_effects(
        cache, loaded, picked_effects, report, should_stop, comparer.differences
    )
    return Recomputed(
        rows=done,
        shards=len(shards),
        effects=len(picked_effects),
        comparisons=comparer.differences.by_array(cache.plan.settings.rows_per_shard),
        tail_draws=done * cache.plan.settings.tail_samples,
        tail_moved=comparer.moved,
    )


def _pick(cache: Cache, num_rows: int, seed: int) -> _PickedRows:
    """Rows at random, and where each of them must come from, by the plan alone."""
    settings = cache.plan.settings
    size = settings.rows_per_shard
    total = len(cache.shards) * size
    chosen_N = np.array(random.Random(seed).sample(range(total), min(num_rows, total)), dtype=np.int64)
    shard_N, at_N = np.array(cache.shards, dtype=np.int64)[chosen_N // size], chosen_N % size
    from_N = np.empty_like(at_N)
    for shard in np.unique(shard_N):
        here = shard_N == shard
        order = randomness.permutation(size, settings.seed, randomness.ROW_ORDER, int(shard))
        from_N[here] = shard * size + order[at_N[here]]
    by_source = np.argsort(from_N)
    row_N, from_N = (shard_N * size + at_N)[by_source], from_N[by_source]
    return _PickedRows(row_N, from_N // settings.seq_len, from_N % settings.seq_len)


def _pick_shards(cache: Cache, request: RecomputeRequest) -> list[int]:
    """Shards at random, as many as have the rows that are asked for."""
    least = 1 if cache.plan.settings.moments_only else 0
    count = max(least, request.rows // cache.plan.settings.rows_per_shard)
    return sorted(random.Random(request.seed).sample(cache.shards, min(count, len(cache.shards))))


def _compare_sums(
    comparer: "_Comparer", shard: int, place: tuple[int, int], report: Report, should_stop: ShouldStop
) -> None:
    """Compare the sums of a shard, the first of `place` of the second of them."""
    (number, count), size = place, comparer.settings.rows_per_shard

    def within_batch() -> None:
        if should_stop():
            raise StoppedError(f"stopped; the sums of {number} of {count} shards were compared")

    def after_batch(rows: int) -> None:
        within_batch()
        report(Progress(stage="recompute sums", done=number * size + rows, total=count * size, unit="rows"))

    report(Progress(stage="recompute sums", done=number * size, total=count * size, unit="rows"))
    recompute_sums.compare(
        comparer.cache, comparer.model, shard, after_batch, within_batch, comparer.differences
    )


class _Comparer:
    """Compares batches of rows with the model, array by array."""

    def __init__(self, cache: Cache, model: models.LoadedModel) -> None:
        self.cache, self.plan, self.model = cache, cache.plan, model
        self.settings = cache.plan.settings
        self.differences = LargestDifferences()
        self.moved = 0
        self.writes = StoredWrites(cache, model)

    def weights(self) -> None:
        """Compare the stored weights of the model with the model's own."""
        for name, ours in self.model.weights(weight_arrays(self.plan), self.plan.model).items():
            stored = self.cache.weights(name.removeprefix("model/"))
            # Gain and offset of norms are measured, the other weights are stored as they are.
            measured = name.startswith("model/norm_") or (
                name == "model/W_O" and self.plan.model.head_write in FOLDS
            )
            unit = MEASURED if measured else 0.0
            allowed = torch.from_numpy(unit * np.abs(ours))[None]
            self.differences.add(name, torch.from_numpy(np.abs(stored - ours))[None], allowed, None)

    def batch(self, sequences: npt.NDArray[np.int64], part: _PickedRows) -> None:
        """Run the model on some sequences, and compare the rows of `part`, which all come from these."""
        tokens_BT = torch.from_numpy(self.cache.tokens[sequences].astype(np.int64))
        forward, outputs = self._run(tokens_BT)
        at_N = np.searchsorted(sequences, part.sequence_N)

        def rows(value: torch.Tensor) -> torch.Tensor:
            return value[
                torch.from_numpy(at_N).to(value.device), torch.from_numpy(part.position_N).to(value.device)
            ]

        for name, expected_N in (
            ("token", tokens_BT.numpy()[at_N, part.position_N]),
            ("sequence", part.sequence_N),
            ("position", part.position_N),
        ):
            stored_N = self.cache.read(f"rows/{name}", part.row_N).astype(np.int64)
            self.differences.add(
                f"rows/{name}", torch.from_numpy(np.abs(stored_N - expected_N)), 0.0, part.row_N
            )
        for layer, z_BTHE in forward.z_BTHE.items():
            self._z(layer, rows(z_BTHE).float(), rows(outputs[layer]).float(), part.row_N)
        for (site, layer), value_BTD in forward.sites_BTD.items():
            self._float16(site_name(layer, site), rows(value_BTD).float(), part.row_N, rounded=True)
        final_ND = rows(forward.final_BTD)
        if self.settings.exact_teacher:
            self._float16("targets/final", final_ND.float(), part.row_N, rounded=False)
        if self.plan.model.keeps_norm and forward.scale_BT is not None:
            self._scale(rows(forward.scale_BT), part.row_N)
        self._targets(final_ND, part)

    def _run(self, tokens_BT: torch.Tensor) -> tuple[activations.Activations, dict[int, torch.Tensor]]:
        """One forward pass, and the attention output of each layer, (B, T, D)."""
        outputs: dict[int, torch.Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(value: torch.Tensor, hook: Any) -> None:
                outputs[layer] = value

            return hook

        hooks = [(f"blocks.{layer}.attn.hook_out", keep(layer)) for layer in self.plan.layers]
        with self.model.bridge.hooks(fwd_hooks=hooks):
            forward = activations.run(self.model, tokens_BT, self.plan.layers, self.settings.sites or ())
        return forward, outputs

    def _read(self, name: str, row_N: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self.cache.read(name, row_N)).to(self.model.device)

    def _z(
        self, layer: int, z_NHE: torch.Tensor, output_ND: torch.Tensor, row_N: npt.NDArray[np.int64]
    ) -> None:
        stored_NHE = torch.from_numpy(self.cache.z(layer, row_N)).to(self.model.device).float()
        if self.settings.z_dtype == "int8":
            scale_NH = self._read(scale_name(layer), row_N).float()
            needed_NH = (z_NHE.abs().amax(-1) / INT8_LARGEST).clamp_max(float(LARGEST_SCALE))
            allowed = tolerance.for_scale(needed_NH, z_NHE, self.plan)
            self.differences.add(scale_name(layer), (scale_NH - needed_NH).abs(), allowed, row_N)
            allowed = tolerance.for_int8(z_NHE, needed_NH, self.plan)
        else:
            allowed = tolerance.for_float16(z_NHE, self.plan, rounded=True)
        self.differences.add(site_name(layer), (stored_NHE - z_NHE).abs(), allowed, row_N)
        self.writes.compare(layer, stored_NHE, allowed, output_ND, row_N, self.differences)

    def _float16(
        self, name: str, values: torch.Tensor, row_N: npt.NDArray[np.int64], *, rounded: bool
    ) -> None:
        stored = self._read(name, row_N).float()
        allowed = tolerance.for_float16(values, self.plan, rounded=rounded)
        self.differences.add(name, (stored - values).abs(), allowed, row_N)

    def _scale(self, scale_N: torch.Tensor, row_N: npt.NDArray[np.int64]) -> None:
        name, allowed_N = FINAL_SCALE, tolerance.noise(self.plan) * scale_N
        self.differences.add(name, (self._read(name, row_N) - scale_N).abs(), allowed_N, row_N)

    def _targets(self, final_ND: torch.Tensor, part: _PickedRows) -> None:
        targets = self.cache.targets(part.row_N)
        source_N = part.sequence_N * self.settings.seq_len + part.position_N
        W_U_DV, b_U_V = self.model.unembedding(self.plan.target_logits)
        for rows in row_blocks(len(part.row_N), self.model.device):
            self.moved += recompute_targets.compare(
                self.plan,
                unembed(final_ND[rows], W_U_DV, b_U_V, self.plan.model.logit_cap),
                recompute_targets.target_rows(targets, rows, self.model.device),
                source_N[rows],
                part.row_N[rows],
                self.differences,
            )
