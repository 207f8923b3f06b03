"""`alens fit`: cache -> lenses, with no model loaded and no forward pass of one.

In: a cache and settings. Out: a lens directory; on the way there `fit.json` (what was asked for, and which
shards are trained on), `log.jsonl` (held-out KL of every head as the fit went on) and `checkpoints/`.
Killed or stopped, the same command goes on from the newest checkpoint.
Shapes: L layers, H heads, V vocabulary.
"""

import json
import logging
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alens.errors import RunError, StoppedError
from alens.evaluation.figures import FigureSums, HeadFigures
from alens.evaluation.held_out import held_out_rows
from alens.fit import checkpoint
from alens.fit.batches import BatchStream
from alens.fit.distributed import Processes, join
from alens.fit.engine import Engine
from alens.fit.module import LensModule
from alens.fit.plan import FitPlan, FitRequest, put_plan, resolve
from alens.lens.saved import (
    DESCRIPTION,
    OUTPUT,
    Lenses,
    LensRecord,
    layer_file,
    load_lenses,
    put_record,
    put_tensors,
)
from alens.lens.whitening import Whitening
from alens.progress import Progress, Report, ShouldStop, never, silent
from alens.rows import RowReader
from alens.store.reader import Cache, Statistics, open_cache
from alens.store.writer import write_errors

log = logging.getLogger("alens")

STATISTICS_SHARDS = 256
"""Moments of this many shards are enough for whitening, and bound what is read before the first step."""

EVALUATIONS = 5
"""Times that held-out figures are taken during a fit, the last at its end."""

ROWS_ON_THE_WAY = 4096
"""Held-out rows for the figures before the end: enough to see where a head stands, and cheap."""


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """What one run of `fit_lenses` did."""

    lenses: Path
    record: LensRecord
    steps_taken: int
    rows: int
    """Rows seen in this run, over all processes."""
    seconds: float
    """In steps, evaluations left out."""
    waited_s: float
    """Of those, waiting for data."""


def fit_lenses(
    request: FitRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> FitSummary:
    """Fit the lenses that `request` asks for, or go on with them; every process of a fit calls this.

    Raises `RequestError` for what cannot be done as asked, `DamageError` for a damaged cache, `RunError`
    for a full disk and the like, `StoppedError` when `should_stop` says so (a checkpoint is saved).
    """
    cache = open_cache(request.store)
    plan = resolve(request, cache)
    if (request.lenses / DESCRIPTION).exists():
        done = load_lenses(request.lenses).record
        log.info("%s is finished: nothing to do", request.lenses)
        return FitSummary(
            lenses=request.lenses, record=done, steps_taken=0, rows=0, seconds=0.0, waited_s=0.0
        )
    processes = join(request.device)
    if processes.first:
        put_plan(request.lenses, plan)
    processes.wait()
    plan = resolve(request, cache)  # as rank 0 wrote it: an unsealed cache may have grown since
    return _Fit(request, cache, plan, processes, report, should_stop).run()


class _Fit:
    """One run of one fit, on one process."""

    def __init__(
        self,
        request: FitRequest,
        cache: Cache,
        plan: FitPlan,
        processes: Processes,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        settings = request.settings
        self.request, self.cache, self.plan, self.processes = request, cache, plan, processes
        self.report, self.should_stop = report, should_stop
        self.reader = RowReader(
            cache, plan.layers, plan.heads, settings.teacher, settings.min_position, processes.device
        )
        self.stream = BatchStream(
            reader=self.reader,
            shards=plan.train_shards,
            batch_rows=settings.batch_rows,
            seed=settings.seed,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        judge = "exact" if cache.plan.settings.exact_teacher else "compressed"
        self.judge = self.reader
        if judge != settings.teacher:
            self.judge = RowReader(
                cache, plan.layers, plan.heads, judge, settings.min_position, processes.device
            )
        statistics = cache.statistics(plan.layers, plan.train_shards[:STATISTICS_SHARDS])
        self.log_mean_output_V = torch.from_numpy(_log_mean_output(statistics)).float()
        self.engine = Engine(
            _module(statistics, plan, self.log_mean_output_V, processes.device),
            processes,
            zero=request.zero,
            batch_rows=settings.batch_rows,
            lr=settings.lr,
        )
        self.seconds = self.waited_s = 0.0

    def run(self) -> FitSummary:
        start = self._restore()
        evaluate_at = {round(self.plan.steps * part / EVALUATIONS) for part in range(1, EVALUATIONS)}
        since = time.monotonic()
        for step, batch in enumerate(self.stream.batches(start, self.plan.steps), start):
            if self.processes.any(self.should_stop()):
                if step > start:
                    self._save(step)
                where = f"saved in {self.request.lenses}" if step else "nothing was learnt yet"
                raise StoppedError(
                    f"stopped after step {step:,} of {self.plan.steps:,} ({where}); run again to go on"
                )
            loss_LH = self.engine.step(batch.z_NHE, batch.teacher, self._learning_rate(step))
            if not bool(torch.isfinite(loss_LH).all()):
                raise RunError(
                    f"the loss of step {step} is not finite: take a lower --lr than {self.request.settings.lr}"
                )
            self.waited_s += batch.waited_s
            self._tell(step + 1, start, loss_LH, time.monotonic() - since + self.seconds)
            if step + 1 in evaluate_at or (step + 1) % self.request.checkpoint_every == 0:
                self.seconds += time.monotonic() - since
                if step + 1 in evaluate_at:
                    self._log(step + 1, self._figures(ROWS_ON_THE_WAY))
                if (step + 1) % self.request.checkpoint_every == 0 and step + 1 < self.plan.steps:
                    self._save(step + 1)
                since = time.monotonic()
        self.seconds += time.monotonic() - since
        record = self._finish(self._figures(self.request.settings.eval_rows))
        return FitSummary(
            lenses=self.request.lenses,
            record=record,
            steps_taken=self.plan.steps - start,
            rows=(self.plan.steps - start) * self.stream.batch_rows,
            seconds=self.seconds,
            waited_s=self.waited_s,
        )

    def _learning_rate(self, step: int) -> float:
        return self.request.settings.lr * (1.0 - step / self.plan.steps)

    def _tell(self, step: int, start: int, loss_LH: torch.Tensor, seconds: float) -> None:
        rows_a_second = (step - start) * self.stream.batch_rows / max(seconds, 1e-9)
        note = f"training KL mean {loss_LH.mean():.3f}, worst head {loss_LH.max():.3f}, {rows_a_second:,.0f} rows/s"
        self.report(Progress(stage="fit", done=step, total=self.plan.steps, unit="steps", note=note))

    def _figures(self, num_rows: int) -> dict[int, list[HeadFigures]]:
        """Figures of every head over held-out rows, over all processes."""
        ranks = {"rank": self.processes.rank, "world_size": self.processes.world_size}
        num_rows = min(num_rows, self.request.settings.eval_rows)
        sums = {layer: FigureSums(len(self.plan.heads), self.processes.device) for layer in self.plan.layers}
        with self.engine.gathered() as module:
            lenses = {layer: module.folded(layer) for layer in self.plan.layers}
            for part in held_out_rows(self.judge, self.plan.held_out_shards, num_rows, **ranks):
                for layer, (weight_HEV, bias_HV) in lenses.items():
                    z_NHE = self.judge.z(part.columns, layer)
                    sums[layer].add(z_NHE, weight_HEV, bias_HV, part.teacher, part.top_ids_N, part.next_ids_N)
        for layer in self.plan.layers:
            self.processes.sum(sums[layer].values)
        return {layer: sums[layer].means() for layer in self.plan.layers}

    def _log(self, step: int, figures: dict[int, list[HeadFigures]]) -> None:
        if not self.processes.first:
            return
        for layer, heads in figures.items():
            log.info(
                "step %d layer %d held-out KL by head: %s",
                step,
                layer,
                " ".join(f"{head.kl:.3f}" for head in heads),
            )
        line = {
            "step": step,
            "seconds": round(self.seconds, 3),
            "heads": list(self.plan.heads),
            "held_out_kl": {
                str(layer): [round(head.kl, 5) for head in heads] for layer, heads in figures.items()
            },
        }
        with write_errors(self.request.lenses), (self.request.lenses / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _restore(self) -> int:
        found = checkpoint.newest(self.request.lenses / "checkpoints")
        if found is None:
            return 0
        self.engine.restore(found.state, found.step)
        log.info("going on after step %d of %d", found.step, self.plan.steps)
        return found.step

    def _save(self, step: int) -> None:
        state = self.engine.state()
        if self.processes.first:
            checkpoint.save(self.request.lenses / "checkpoints", step, state)
        self.processes.wait()

    def _finish(self, figures: dict[int, list[HeadFigures]]) -> LensRecord:
        """Write the lenses; `lens.json` last, then the checkpoints are no longer needed."""
        self._log(self.plan.steps, figures)
        record = _record(self.request, self.cache, self.plan, figures)
        root, files = self.request.lenses, {}
        W_O_LHED = torch.from_numpy(self.cache.weights("W_O"))
        with self.engine.gathered() as module, write_errors(root):
            for layer in self.plan.layers:
                weight_HEV, bias_HV = module.folded(layer)
                if self.processes.first:
                    tensors = {
                        "weight": weight_HEV,
                        "bias": bias_HV,
                        "W_O": W_O_LHED[layer, list(self.plan.heads)],
                    }
                    files[layer_file(layer)] = put_tensors(root, layer_file(layer), tensors)
            if self.processes.first:
                files[OUTPUT] = put_tensors(root, OUTPUT, {"log_mean_output": self.log_mean_output_V})
                put_record(root, LensRecord(**{**record.__dict__, "files": files}))
                shutil.rmtree(root / "checkpoints", ignore_errors=True)
        self.processes.wait()
        return Lenses(root).record


def _log_mean_output(statistics: Statistics) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """The log of the mean output; a token that never had probability gets the smallest that float32 knows."""
    return np.log(np.maximum(statistics.mean_output_V, np.finfo(np.float32).tiny))


def _module(
    statistics: Statistics, plan: FitPlan, log_mean_output_V: torch.Tensor, device: torch.device
) -> LensModule:
    heads = list(plan.heads)
    whitening = {
        layer: Whitening.from_moments(
            statistics.mean_LHE[index, heads], statistics.covariance_LHEE[index, heads]
        ).to(device)
        for index, layer in enumerate(plan.layers)
    }
    return LensModule(whitening=whitening, log_mean_output_V=log_mean_output_V)


def _record(
    request: FitRequest, cache: Cache, plan: FitPlan, figures: dict[int, list[HeadFigures]]
) -> LensRecord:
    packages = ("alens", "torch", "deepspeed")
    return LensRecord(
        design=request.settings.lens,
        objective=request.settings.objective,
        model=cache.plan.model,
        cache={
            "plan": plan.cache_plan,
            "fingerprint": cache.fingerprint,
            "train_shards": list(plan.train_shards),
            "held_out_shards": list(plan.held_out_shards),
        },
        layers=plan.layers,
        heads=plan.heads,
        fit={**plan.settings, "steps": plan.steps, "rows_seen": plan.steps * request.settings.batch_rows},
        held_out={str(layer): [asdict(head) for head in heads] for layer, heads in figures.items()},
        files={},
        software={"host": platform.node(), **{name: version(name) for name in packages}},
    )
