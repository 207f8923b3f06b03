"""`alens jacobians`: measures how the residual stream moves with z of each head; can be stopped at any time and run again.

In: a cache and its model. Out: `jacobians/` in the cache's directory: the mean Jacobian of each head over the positions of
some sequences. One backward pass gives the gradients by z of all heads and layers at once.
Shapes: B sequences, T tokens, H heads, E d_head, D d_model.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alens import randomness
from alens.effects.effect_sample import training_shards
from alens.effects.mean_jacobian import mean_jacobian, passes_needed
from alens.effects.measurement import examined_model, heads_to_measure, left_to_measure
from alens.effects.settings import JacobianRequest
from alens.errors import RequestError, RunError, StoppedError
from alens.heads import Heads
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.machine.allotment import follow_allotment
from alens.machine.software import software
from alens.model.gradient_pass import GradientPass
from alens.model.models import LoadedModel
from alens.pictures.numbers import duration
from alens.result import Result
from alens.store.cache_reader import Cache, open_cache
from alens.store.effect_files import FIRST_POSITION
from alens.store.jacobian_files import JacobianFiles

log = logging.getLogger("alens")

STAGE, UNIT = "Jacobians", "passes"


@dataclass(frozen=True, kw_only=True)
class JacobianSummary(Result):
    """The result of one run of `measure_jacobians`."""

    store: Path
    rows: int
    """Rows of all Jacobians that were asked for."""
    heads: int
    reach: str
    passes: int
    """Backward passes that this run made, of a batch of sequences each."""
    seconds: float
    complete: bool
    """Whether all that was asked for is there; other workers may still be at theirs."""

    def headline(self) -> str:
        """How many heads were measured, and whether all are there."""
        state = "complete" if self.complete else "not complete yet"
        return f"{self.reach} Jacobians of {self.heads} heads on {self.rows:,} rows, {state}"

    def records(self) -> list[dict[str, Any]]:
        """A single record: a run has one result."""
        return [self.to_json()]


def measure_jacobians(
    request: JacobianRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> JacobianSummary:
    """Measure the Jacobians that are not there yet, of this worker's sequences.

    Raises `RequestError` for a request that cannot be met, `RunError` for a full disk and the like, and `StoppedError`
    when `should_stop` says so: what was written stays, and the next run goes on.
    """
    follow_allotment()
    cache, settings = open_cache(request.store), request.settings
    heads = _heads(cache, request)
    shards = training_shards(cache, settings.rows)
    files = JacobianFiles(cache.paths.root, cache.plan.identity, settings.reach)
    work = left_to_measure(files, shards, heads, request.worker)
    seconds, passes = 0.0, 0
    if work:
        model = examined_model(cache, request, report)
        job = _JacobianJob(request, cache, model, files, report, should_stop)
        seconds = job.run({shard: (shards[shard], left) for shard, left in work.items()})
        passes = job.passes
    return JacobianSummary(
        store=request.store,
        rows=sum(map(len, shards)) * (cache.plan.settings.seq_len - FIRST_POSITION),
        heads=len(heads),
        reach=settings.reach,
        passes=passes,
        seconds=seconds,
        complete=all(files.left(shard, heads) is None for shard in range(len(shards))),
    )


def _heads(cache: Cache, request: JacobianRequest) -> Heads:
    """The heads that are asked for. Raises `RequestError` for heads or a cache that Jacobians cannot be measured of."""
    plan = cache.plan
    if plan.model.final_norm is None or not plan.model.final_norm.is_known:
        raise RequestError(
            f"{cache.root} does not hold the model's last norm, behind which Jacobians are read: an earlier alens made it, or "
            "the norm is of another kind; cache the text again"
        )
    return heads_to_measure(cache, request.settings)


class _StoppedBetweenPassesError(Exception):
    """Raised between two passes; becomes a `StoppedError`."""


class _JacobianJob:
    """One run. Attributes: `passes`, how many backward passes were made."""

    def __init__(
        self,
        request: JacobianRequest,
        cache: Cache,
        model: LoadedModel,
        files: JacobianFiles,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self._request, self._cache, self._model, self._files = request, cache, model, files
        self._report, self._should_stop = report, should_stop
        self.passes, self._total, self._timed = 0, 0, False

    def run(self, work: dict[int, tuple[list[int], Heads]]) -> float:
        """Measure these heads on these sequences, by shard; the seconds that it took. Raises `StoppedError`."""
        started = time.monotonic()
        self._total = sum(self._num_passes(sequences) for sequences, _ in work.values())
        try:
            for shard, (sequences, heads) in work.items():
                self._look()
                self._shard(shard, sequences, heads, len(work))
        except _StoppedBetweenPassesError:
            raise StoppedError(
                f"stopped; Jacobians of {self._done} of {len(work)} parts of the sequences are in {self._cache.root}, run again "
                "to go on"
            ) from None
        return time.monotonic() - started

    _done = 0

    def _look(self) -> None:
        if self._should_stop():
            raise _StoppedBetweenPassesError

    def _num_passes(self, sequences: list[int]) -> int:
        settings, plan = self._request.settings, self._cache.plan
        return passes_needed(
            settings.reach, len(sequences), plan.settings.seq_len, plan.model.d_model, settings.probes
        )

    def _shard(self, shard: int, sequences: list[int], heads: Heads, shards: int) -> None:
        since = time.monotonic()
        passes = self._num_passes(sequences)
        tokens_BT = torch.from_numpy(self._cache.tokens[sequences].astype(np.int64))
        if not self._timed:
            self._report(Progress(stage="timing the model"))
        clean = GradientPass(self._model, tokens_BT, heads.layers)
        if not self._timed:
            self._say_cost(clean, time.monotonic() - since, shards)

        def each() -> None:
            self._look()
            self._report(Progress(stage=STAGE, done=self.passes, total=self._total, unit=UNIT))
            self.passes += 1

        seed = self._cache.plan.settings.seed
        draws = randomness.generator(seed, randomness.JACOBIAN_PROBES, shard, passes)
        means = mean_jacobian(clean, heads.by_layer, self._request.settings.reach, passes, draws, each)
        del clean
        for layer, mean_EHD in means.items():
            self._put(shard, layer, heads, sequences, mean_EHD, passes, since)
        self._done += 1
        self._report(Progress(stage=STAGE, done=self.passes, total=self._total, unit=UNIT))

    def _say_cost(self, clean: GradientPass, forward_s: float, shards: int) -> None:
        """Time one pass, and say what all will cost."""
        self._timed = True
        probe_BTD = torch.ones_like(clean.stream_BTD)
        since = time.monotonic()
        for part_BTHE in clean.gradients(probe_BTD).values():
            float(part_BTHE.sum())  # waits for the device
        pass_s = time.monotonic() - since
        log.info(
            "%s backward passes to make: about %s, %s s a pass",
            f"{self._total:,}",
            duration(self._total * pass_s + shards * forward_s),
            f"{pass_s:.2g}",
        )

    def _put(
        self,
        shard: int,
        layer: int,
        heads: Heads,
        sequences: list[int],
        mean_EHD: torch.Tensor,
        passes: int,
        since: float,
    ) -> None:
        halves_EHD = mean_EHD.to(torch.float16).cpu()
        if not bool(torch.isfinite(halves_EHD).all()):
            raise RunError(
                f"a Jacobian of layer {layer} is not finite in float16: check the model's weights and dtype"
            )
        note = {
            "reach": self._request.settings.reach,
            "passes": passes,
            "sequences": sequences,
            "worker": str(self._request.worker),
            "device": str(self._model.device),
            "threads": torch.get_num_threads(),
            "rows": len(sequences) * (self._cache.plan.settings.seq_len - FIRST_POSITION),
            "seconds": round(time.monotonic() - since, 3),
            "finished": time.time(),
            **software(),
        }
        self._files.put(shard, layer, heads.by_layer[layer], halves_EHD.contiguous().numpy(), note)
