"""What `alens fit` would take on the planned cache: steps, time, memory, and the size of what it writes.

In: the plan of a cache, measured rates, the heads to fit. Out: a `FitEstimate`. Settings are the defaults of
`FitSettings`, and rows, steps and evaluations are counted by the code of a fit. Pure arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.fit.batches import num_lanes
from alens.fit.convergence import evaluation_steps
from alens.fit.judging import ROWS_DURING_FIT
from alens.fit.optimiser import STATE
from alens.fit.settings import FitRequest
from alens.fit.training_shards import Shards, eval_rows, wanted_shards
from alens.planning.disk import DiskRates
from alens.planning.fit_rates import COPIES, FitRates
from alens.store.schema import Plan

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A cache all of whose shards are committed."""

    root: Path
    plan: Plan

    @property
    def shards(self) -> Shards:
        return tuple(range(self.plan.num_shards))


@dataclass(frozen=True, kw_only=True)
class FitEstimate:
    """A fit with the default settings."""

    plan: Plan
    rates: FitRates
    disk: DiskRates
    heads: Mapping[int, int]
    """The number of heads to fit, by layer."""
    shard_bytes: int
    """Bytes of what the fit reads of a shard, decoded."""
    on_cpu: bool
    free_memory_bytes: int
    """Free memory of the device."""

    @property
    def num_heads(self) -> int:
        return sum(self.heads.values())

    @property
    def shards(self) -> tuple[Shards, Shards]:
        """(shards to train on, shards that are held out). Raises `RequestError` where nothing is left to train on."""
        return wanted_shards(_Planned(root=Path("the cache"), plan=self.plan), self.rates.settings)

    @property
    def steps(self) -> int:
        """The most steps of the fit; its lenses may converge before."""
        settings, a_shard = self.rates.settings, self._usable_rows(1)
        lanes = num_lanes(settings.batch_rows, a_shard)
        rows = len(self.shards[0]) * (a_shard // lanes * lanes)
        return settings.steps or max(1, int(settings.epochs * rows // settings.batch_rows))

    @property
    def held_out_rows(self) -> int:
        """Rows that figures are taken of at the end."""
        return min(eval_rows(self.rates.settings, self.plan), self._usable_rows(len(self.shards[1])))

    def _usable_rows(self, shards: int) -> int:
        settings = self.plan.settings
        positions = settings.seq_len - self.rates.settings.min_position
        return shards * settings.sequences_per_shard * positions

    # Seconds

    @property
    def step_s(self) -> float:
        """All steps."""
        rows = self.rates.settings.batch_rows
        return self.steps * sum(self.rates.step_s(heads, rows) for heads in self.heads.values())

    @property
    def evaluations(self) -> int:
        """How many times held-out losses are computed."""
        return len(evaluation_steps(self.steps)) + self.rates.at_closed_form

    @property
    def evaluate_s(self) -> float:
        """Held-out losses between steps."""
        rows = min(ROWS_DURING_FIT, self.held_out_rows)
        return self.evaluations * self.rates.judging.losses_s(self.num_heads, rows)

    @property
    def figures_s(self) -> float:
        """The figures of all held-out rows, at the end."""
        return self.rates.judging.all_figures_s(self.num_heads, self.held_out_rows)

    @property
    def saves(self) -> int:
        """How many checkpoints are saved."""
        return (self.steps - 1) // FitRequest.checkpoint_every

    @property
    def write_s(self) -> float:
        """Checkpoints, and the lenses."""
        return self.saves * self.save_s + self.disk.save_s(self.lens_bytes)

    @property
    def save_s(self) -> float:
        """One checkpoint."""
        return self.disk.save_s(self.checkpoint_bytes)

    @property
    def seconds(self) -> float:
        """All of it, but for the start of the program."""
        return self.step_s + self.evaluate_s + self.figures_s + self.write_s

    # Bytes

    @property
    def weights(self) -> int:
        """Numbers that are trained."""
        return self.num_heads * self.rates.weights

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and the state of the optimiser, which are on the device."""
        return FLOAT_BYTES * COPIES * self.weights

    @property
    def _best_bytes(self) -> int:
        """The best maps so far, which are in the memory of the CPU."""
        return self.num_heads * self.rates.map_bytes + self.rates.shared_bytes

    @property
    def memory_bytes(self) -> int:
        """The most memory of a fit on a CPU, libraries aside: training, the averages that are judged, the best lenses, and
        two shards."""
        return self.training_bytes + FLOAT_BYTES * self.weights + self._best_bytes + 2 * self.shard_bytes

    @property
    def save_memory_bytes(self) -> int:
        """The same while a checkpoint is saved, of which a copy is made first."""
        copy = FLOAT_BYTES * (1 + len(STATE)) * self.weights
        return self.training_bytes + copy + self._best_bytes + 2 * self.shard_bytes

    @property
    def lens_bytes(self) -> int:
        """The lens directory."""
        W_O_bytes = FLOAT_BYTES * self.plan.model.d_head * self.plan.model.d_model
        return self.num_heads * (self.rates.map_bytes + W_O_bytes) + self.rates.shared_bytes

    @property
    def checkpoint_bytes(self) -> int:
        """Weights, the optimiser's state, the best lenses."""
        return FLOAT_BYTES * (1 + len(STATE)) * self.weights + self.num_heads * self.rates.map_bytes

    def to_json(self) -> dict[str, Any]:
        """Its numbers; only `refused` where the defaults leave nothing to train on."""
        settings = self.rates.settings
        try:
            train, held_out = self.shards
        except RequestError as error:
            return {"refused": str(error)}
        return {
            "refused": None,
            "lens": settings.lens,
            "objective": settings.objective,
            "layers": len(self.heads),
            "heads": self.num_heads,
            "train_rows": self._usable_rows(len(train)),
            "held_out_rows": self.held_out_rows,
            "held_out_shards": len(held_out),
            "batch_rows": settings.batch_rows,
            "epochs": settings.epochs,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "saves": self.saves,
            "step_hours": self.step_s / 3600,
            "evaluate_hours": self.evaluate_s / 3600,
            "figures_hours": self.figures_s / 3600,
            "write_hours": self.write_s / 3600,
            "fit_hours": self.seconds / 3600,
            "weights": self.weights,
            "training_bytes": self.training_bytes,
            "memory_bytes": self.memory_bytes,
            "save_memory_bytes": self.save_memory_bytes,
            "needed_bytes": self.memory_bytes if self.on_cpu else self.training_bytes,
            "free_memory_bytes": self.free_memory_bytes,
            "lens_bytes": self.lens_bytes,
            "checkpoint_bytes": self.checkpoint_bytes,
            "save_s": self.save_s,
        }
