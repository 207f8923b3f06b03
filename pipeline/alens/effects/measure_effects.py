"""`alens effects`: measures what the model loses without each head; can be stopped at any time and run again.

In: a sealed cache and its model. Out: `effects/` in the cache's directory. The effect of a head at a row is the final
normed residual, less what it is when z of the head is its mean over the cache at every position of the sequence.
Shapes: B sequences, T tokens, N rows, H heads, E d_head, D d_model, C copies of sequences.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.effects.effect_cost import EffectCost, probe
from alens.effects.effect_sample import sample_shards
from alens.effects.measurement import examined_model, heads_to_measure, left_to_measure
from alens.effects.settings import EffectRequest
from alens.errors import RequestError, RunError, StoppedError
from alens.heads import Heads
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.machine.allotment import follow_allotment
from alens.machine.blocks import slices
from alens.machine.software import software
from alens.model import models
from alens.model.partial_pass import CleanPass, begins_at, clean_pass, without_heads
from alens.pictures.numbers import duration
from alens.result import Result
from alens.rows.moments import mean_z
from alens.store.cache_reader import Cache, open_cache
from alens.store.effect_files import FIRST_POSITION, EffectFiles

log = logging.getLogger("alens")


@dataclass(frozen=True, kw_only=True)
class EffectSummary(Result):
    """The result of one run of `measure_effects`."""

    store: Path
    rows: int
    """Rows of all effects that were asked for."""
    heads: int
    effects_measured: int
    """Pairs of a row and a head that this run measured."""
    seconds: float
    complete: bool
    """Whether all that was asked for is there; other workers may still be at theirs."""

    def headline(self) -> str:
        """How many effects were measured, and whether all are there."""
        state = "complete" if self.complete else "not complete yet"
        return (
            f"{self.effects_measured:,} effects of {self.heads} heads on {self.rows:,} rows measured, {state}"
        )

    def records(self) -> list[dict[str, Any]]:
        """A single record: a run has one result."""
        return [self.to_json()]


def measure_effects(
    request: EffectRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> EffectSummary:
    """Measure the effects that are not there yet, of this worker's rows.

    Raises `RequestError` for a request that cannot be met, `RunError` for a full disk and the like, and `StoppedError`
    when `should_stop` says so: what was written stays, and the next run goes on.
    """
    follow_allotment()
    cache = open_cache(request.store)
    heads = _heads(cache, request)
    shards = sample_shards(cache, request.settings.rows)
    files = EffectFiles(cache.paths.root, cache.plan.identity)
    work = left_to_measure(files, shards, heads, request.worker)
    seconds, measured = 0.0, 0
    if work:
        model = examined_model(cache, request, report)
        job = _EffectJob(request, cache, model, files, heads, report, should_stop)
        seconds = job.run({shard: (shards[shard], left) for shard, left in work.items()})
        measured = job.measured
    done = all(files.left(shard, heads) is None for shard in range(len(shards)))
    return EffectSummary(
        store=request.store,
        rows=sum(map(len, shards)) * (cache.plan.settings.seq_len - FIRST_POSITION),
        heads=len(heads),
        effects_measured=measured,
        seconds=seconds,
        complete=done,
    )


def _heads(cache: Cache, request: EffectRequest) -> Heads:
    """The heads that are asked for. Raises `RequestError` for heads or a cache that effects cannot be measured of."""
    cache.check_rows()
    if not cache.sealed:
        raise RequestError(
            f"{cache.root} is not sealed, and the mean of z is over the whole cache: run `alens cache` until it is"
        )
    return heads_to_measure(cache, request.settings)


class _LeftUnfinishedError(Exception):
    """Raised between two passes; becomes a `StoppedError`."""


class _EffectJob:
    """Measures shard by shard, and within one layer by layer: each layer of a shard is a file."""

    def __init__(
        self,
        request: EffectRequest,
        cache: Cache,
        model: models.LoadedModel,
        files: EffectFiles,
        heads: Heads,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self._request, self._cache, self._model, self._files = request, cache, model, files
        self._report, self._should_stop = report, should_stop
        self._positions = cache.plan.settings.seq_len - FIRST_POSITION
        self._heads = heads
        every_head = Heads.grid(heads.layers, range(cache.plan.model.n_heads))
        self._mean_HE = {
            layer: mean_HE.to(model.device)
            for layer, mean_HE in mean_z(cache, every_head, cache.shards).items()
        }
        self._whole = False
        self._cost: EffectCost | None = None
        self.measured = 0

    def run(self, work: dict[int, tuple[list[int], Heads]]) -> float:
        """Measure these heads on these sequences, by shard; the seconds that it took. Raises `StoppedError`."""
        total = sum(len(sequences) * len(heads) for sequences, heads in work.values()) * self._positions
        started = time.monotonic()
        try:
            for shard, (sequences, heads) in work.items():
                self._look()
                if self._cost is None:
                    self._begin(self._clean(sequences, self._heads), work, total)
                clean = self._clean(sequences, heads)
                for layer, numbers in heads.by_layer.items():
                    since = time.monotonic()
                    effects_NHD = self._effects(clean, layer, numbers, total)
                    self._put(shard, layer, numbers, sequences, effects_NHD, since)
        except _LeftUnfinishedError:
            raise StoppedError(
                f"stopped; {self.measured:,} of {total:,} effects are in {self._cache.root}, run again to go on"
            ) from None
        return time.monotonic() - started

    def _look(self) -> None:
        if self._should_stop():
            raise _LeftUnfinishedError

    def _clean(self, sequences: Sequence[int], heads: Heads) -> CleanPass:
        """A pass with nothing changed. Raises `RunError` where the final residual is not finite."""
        tokens_BT = torch.from_numpy(self._cache.tokens[list(sequences)].astype(np.int64))
        clean = clean_pass(self._model, tokens_BT, heads.layers)
        if not bool(torch.isfinite(clean.final_BTD).all()):
            raise RunError(
                f"the final residual of {self._cache.plan.model.id} is not finite: check its weights"
            )
        return clean

    def _begin(self, clean: CleanPass, work: dict[int, tuple[list[int], Heads]], total: int) -> None:
        """Choose how to run the model, and say what the work will cost."""
        self._report(Progress(stage="timing the model"))
        layers = tuple(sorted({layer for _, left in work.values() for layer in left.layers}))
        self._whole = not begins_at(self._model, clean, max(layers))
        if self._whole:
            log.warning(
                "%s hands more from layer to layer than the residual stream: each pass runs all layers, which takes longer",
                self._cache.plan.model.architecture,
            )
        most = max(len(sequences) * len(left) for sequences, left in work.values())
        copies = min(self._cache.plan.settings.batch_size, most)
        self._cost = probe(self._model, clean, layers, self._mean_HE, copies, self._whole)
        num_copies = dict.fromkeys(layers, 0)
        for sequences, left in work.values():
            for layer, numbers in left.by_layer.items():
                num_copies[layer] += len(sequences) * len(numbers)
        cost_s = self._cost.seconds(num_copies)
        log.info(
            "%s effects of heads on rows to measure: about %s, %s a row and head",
            f"{total:,}",
            duration(cost_s),
            f"{1e3 * cost_s / total:.2g} ms",
        )
        self._report(Progress(stage="effects", done=0, total=total, unit="effects"))

    def _effects(
        self, clean: CleanPass, layer: int, numbers: Sequence[int], total: int
    ) -> npt.NDArray[np.float16]:
        """(N, H, D) the effects of these heads of a layer on the rows of the clean pass, from position 1 on."""
        sequences = len(clean.tokens_BT)
        copies = [(head, sequence) for head in numbers for sequence in range(sequences)]
        parts = []
        for chosen in _even(len(copies), self._cache.plan.settings.batch_size):
            self._look()
            batch = copies[chosen]
            without_CTD = without_heads(
                self._model, clean, layer, batch, self._mean_HE[layer], whole=self._whole
            )
            full_CTD = clean.final_BTD[[sequence for _, sequence in batch]]
            effect_CTD = (full_CTD.float() - without_CTD.float())[:, FIRST_POSITION:]
            parts.append(effect_CTD.to(torch.float16).cpu())
            done = self.measured + (chosen.start + len(batch)) * self._positions
            self._report(
                Progress(stage="effects", done=done, total=total, unit="effects", note=f"layer {layer}")
            )
        effects_HND = torch.cat(parts).unflatten(0, (len(numbers), sequences)).flatten(1, 2)
        if not bool(torch.isfinite(effects_HND).all()):
            raise RunError(
                f"an effect of layer {layer} is not finite in float16: check the model's weights and dtype"
            )
        self.measured += len(copies) * self._positions
        effects_NHD: npt.NDArray[np.float16] = effects_HND.transpose(0, 1).contiguous().numpy()
        return effects_NHD

    def _put(
        self,
        shard: int,
        layer: int,
        numbers: Sequence[int],
        sequences: Sequence[int],
        effects_NHD: npt.NDArray[np.float16],
        since: float,
    ) -> None:
        note = {
            "sequences": list(sequences),
            "mean_sha256": hashlib.sha256(self._mean_HE[layer].cpu().numpy().tobytes()).hexdigest(),
            "worker": str(self._request.worker),
            "device": str(self._model.device),
            "threads": torch.get_num_threads(),
            "rows": len(effects_NHD),
            "seconds": round(time.monotonic() - since, 3),
            "finished": time.time(),
            **software(),
        }
        self._files.put(shard, layer, numbers, effects_NHD, note)


def _even(count: int, most: int) -> list[slice]:
    """Slices of `count` things, at most `most` in one, all of about the same length."""
    return slices(count, -(-count // -(-count // most)))
