"""One fit in progress: its engine, how its lenses do on held-out rows, and which of them have converged.

In: a `Recipe`, a `FitPlan`, processes. Out: steps taken on batches, held-out losses, checkpoints, and in the end
the maps of every layer. A loop gives it batches (`run.py`), or one loop several trainers the same batches (a sweep).
Shapes: L layers, H heads, U losses of a layer (one a head, or one a layer).
"""

import dataclasses
import functools
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from alens.errors import RunError
from alens.evaluation.figures import FigureSums, sum_of_kl
from alens.evaluation.held_out import HeldOutRows, held_out_rows
from alens.fit import checkpoint
from alens.fit.batches import Batch, BatchStream
from alens.fit.convergence import Evaluation, converged, evaluation_steps
from alens.fit.distributed import Processes
from alens.fit.engine import Engine
from alens.fit.module import LensModule
from alens.fit.optimiser import learning_rate
from alens.fit.plan import FitPlan
from alens.fit.recipe import Recipe
from alens.lens.designs.design import Design
from alens.lens.maps import FORMS, LensMaps
from alens.store.durable import write_errors
from alens.teacher import Teacher

log = logging.getLogger("alens")

ROWS_ON_THE_WAY = 4096
"""Held-out rows for the losses before the end: enough to see where a head stands, and cheap."""

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """Held-out losses after some step."""

    step: int
    losses: dict[int, list[float]]
    """By layer, nats; the objective's own loss, of averaged lenses."""


class Trainer:
    """A fit on this process. Every method that evaluates, saves or restores is collective."""

    def __init__(
        self,
        recipe: Recipe,
        plan: FitPlan,
        processes: Processes,
        lenses: Path,
        *,
        zero: int = 0,
        deepspeed: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.plan, self.processes, self.lenses = recipe, plan, processes, lenses
        self.settings = recipe.settings
        self.grounds = recipe.grounds(plan.train_shards)
        designs = {layer: recipe.design(ground) for layer, ground in self.grounds.items()}
        self.num_losses = {layer: design.num_losses for layer, design in designs.items()}
        self.engine = Engine(
            LensModule(designs, recipe.objective),
            processes,
            zero=zero,
            batch_rows=self.settings.batch_rows,
            lr=self.settings.lr,
            config=deepspeed,
        )
        self.step_number = 0
        """Steps taken."""
        self.marks: list[Mark] = []
        """Held-out losses so far."""
        self.frozen: dict[tuple[int, int], int] = {}
        """By layer and loss, the step after which it had converged."""
        self.frozen_maps: dict[int, LensMaps] = {}
        """By layer; only the heads of `frozen` count."""
        self._evaluate_at = frozenset(evaluation_steps(plan.steps))

    def stream(self) -> BatchStream:
        """This process's batches."""
        return BatchStream(
            reader=self.recipe.reader,
            shards=self.plan.train_shards,
            batch_rows=self.settings.batch_rows,
            seed=self.settings.seed,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            target=self.recipe.target,
        )

    # Steps

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or every lens has converged."""
        return self.step_number >= self.plan.steps or len(self.frozen) == sum(self.num_losses.values())

    def step(self, batch: Batch) -> torch.Tensor:
        """One step; gives the (L, U) losses of this rank's rows before it. Raises `RunError` when they explode."""
        lr = learning_rate(self.settings.lr, self.step_number)
        loss_LU = self.engine.step(batch.z_NHE, batch.teacher, lr, self._active())
        if not bool(torch.isfinite(loss_LU).all()):
            raise RunError(
                f"the loss of step {self.step_number} is not finite: take a lower --lr than {self.settings.lr}"
            )
        self.step_number += 1
        return loss_LU

    def _active(self) -> dict[int, list[int]] | None:
        if not self.frozen:
            return None
        return {
            layer: [unit for unit in range(count) if (layer, unit) not in self.frozen]
            for layer, count in self.num_losses.items()
        }

    # Held-out rows

    @property
    def wants_evaluation(self) -> bool:
        """Whether held-out losses are due after the steps taken."""
        return self.step_number in self._evaluate_at

    def evaluate(self, seconds: float) -> None:
        """Held-out losses of the averaged lenses; those that have converged are trained no further."""
        designs = self._designs()
        losses = self._held_out_losses(designs)
        self.marks.append(Mark(step=self.step_number, losses=losses))
        for layer, count in self.num_losses.items():
            done = [
                unit
                for unit in range(count)
                if (layer, unit) not in self.frozen and self._converged(layer, unit)
            ]
            if done:
                self._freeze(layer, done, designs[layer].maps())
        self._log(seconds)

    def _converged(self, layer: int, unit: int) -> bool:
        history = [Evaluation(step=mark.step, kl=mark.losses[layer][unit]) for mark in self.marks]
        return self.settings.tolerance > 0 and converged(history, self.settings.tolerance)

    def _freeze(self, layer: int, units: list[int], maps: LensMaps) -> None:
        """Keep these lenses as they are now: the optimiser moves on for the others of the layer."""
        self.frozen.update({(layer, unit): self.step_number for unit in units})
        heads = self._heads_of(layer, units, maps)
        if layer in self.frozen_maps:
            self.frozen_maps[layer].put(heads, maps.select(heads))
        else:
            self.frozen_maps[layer] = maps

    def maps(self) -> dict[int, LensMaps]:
        """The lenses of every layer as they are now: averages, and what was kept of those that had converged."""
        found = {layer: design.maps() for layer, design in self._designs().items()}
        for layer, kept in self.frozen_maps.items():
            units = [unit for frozen, unit in self.frozen if frozen == layer]
            heads = self._heads_of(layer, units, kept)
            found[layer].put(heads, kept.select(heads))
        return found

    def names(self, layer: int, unit: int) -> list[str]:
        """What lenses with this loss are called: `18.6` is head 6 of layer 18."""
        heads = self.recipe.heads
        return [f"{layer}.{head}" for head in ((heads[unit],) if self._alone(layer) else heads)]

    def _alone(self, layer: int) -> bool:
        """Whether each head of the layer has a loss of its own."""
        return self.num_losses[layer] == len(self.recipe.heads)

    @property
    def converged(self) -> dict[str, int]:
        """By name of a lens, the step after which it had converged."""
        return {
            name: step
            for (layer, unit), step in sorted(self.frozen.items())
            for name in self.names(layer, unit)
        }

    def _heads_of(self, layer: int, units: list[int], maps: LensMaps) -> list[int]:
        """The heads that these losses train: one each, or all where heads share a loss."""
        return units if self._alone(layer) else list(range(maps.num_heads))

    def _designs(self) -> dict[int, Design]:
        """Designs that hold the averaged parameters, whole."""
        averages = self.engine.averages()
        found = {}
        for layer, ground in self.grounds.items():
            prefix = f"designs.{layer}."
            design = self.recipe.design(ground)
            design.load_state_dict(
                {n.removeprefix(prefix): value for n, value in averages.items() if n.startswith(prefix)},
                assign=True,
            )
            found[layer] = design.requires_grad_(False)
        return found

    def _held_out_losses(self, designs: Mapping[int, Design]) -> dict[int, list[float]]:
        """By layer, the mean objective of each loss over held-out rows, over all processes."""
        device, loss = self.processes.device, self.recipe.objective.loss
        sums = {
            layer: torch.zeros(n + 1, dtype=torch.float64, device=device)
            for layer, n in self.num_losses.items()
        }
        for part, target in self._held_out(ROWS_ON_THE_WAY):
            for layer, design in designs.items():
                z_NHE = self.recipe.judge.z(part.columns, layer)
                sums[layer][:-1] += design(z_NHE, functools.partial(loss, teacher=target)).double() * len(
                    z_NHE
                )
                sums[layer][-1] += len(z_NHE)
        totals = {layer: self.processes.sum(values) for layer, values in sums.items()}
        return {layer: (total[:-1] / total[-1]).tolist() for layer, total in totals.items()}

    def figures(self, maps: Mapping[int, LensMaps]) -> tuple[dict[int, FigureSums], float]:
        """Figures of every head over all held-out rows, over all processes; and the KL of the mean output there."""
        log_mean_V = next(iter(self.grounds.values())).log_mean_output_V
        kl_and_rows = torch.zeros(2, dtype=torch.float64, device=self.processes.device)
        sums = {layer: FigureSums(of.num_heads, self.processes.device) for layer, of in maps.items()}
        for part, target in self._held_out(self.settings.eval_rows):
            kl_and_rows[0] += sum_of_kl(log_mean_V, target)
            kl_and_rows[1] += len(part.columns)
            for layer, of in maps.items():
                z_NHE = self.recipe.judge.z(part.columns, layer)
                sums[layer].add(z_NHE, of, target, part.top_ids_N, part.next_ids_N)
        for of_layer in sums.values():
            of_layer.reduce(self.processes.sum)
        kl, rows = self.processes.sum(kl_and_rows).tolist()
        return sums, kl / max(rows, 1.0)

    def _held_out(self, num_rows: int) -> Iterator[tuple[HeldOutRows, Teacher]]:
        ranks = {"rank": self.processes.rank, "world_size": self.processes.world_size}
        num_rows = min(num_rows, self.settings.eval_rows)
        for part in held_out_rows(self.recipe.judge, self.plan.held_out_shards, num_rows, **ranks):
            yield part, self.recipe.target(part.columns, part.teacher)

    def _log(self, seconds: float) -> None:
        """A line of `log.jsonl`, and of the log for each layer."""
        if not self.processes.first:
            return
        mark = self.marks[-1]
        for layer, losses in mark.losses.items():
            done = sum(frozen == layer for frozen, _ in self.frozen)
            said = [
                f"{self.names(layer, unit)[0] if self._alone(layer) else 'all heads'} {loss:.3f}"
                for unit, loss in enumerate(losses)
            ]
            log.info(
                "step %d layer %d held-out loss: %s%s", mark.step, layer, ", ".join(said),
                f" ({done} of {len(losses)} converged)" if done else "",
            )  # fmt: skip
        line = {
            "step": mark.step,
            "rows": mark.step * self.settings.batch_rows,
            "seconds": round(seconds, 3),
            "heads": list(self.recipe.heads),
            "held_out_loss": {
                str(layer): [round(x, 5) for x in losses] for layer, losses in mark.losses.items()
            },
            "converged": list(self.converged),
        }
        with write_errors(self.lenses), (self.lenses / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    # State

    def save(self) -> None:
        """A checkpoint after the steps taken. Raises `RunError` when the disk refuses."""
        state = self.engine.state()
        if self.processes.first:
            for layer, maps in self.frozen_maps.items():
                state |= {f"frozen/{layer}/{name}": part.cpu() for name, part in maps.tensors().items()}
            notes = {
                "marks": [dataclasses.asdict(mark) for mark in self.marks],
                "frozen": [[layer, unit, step] for (layer, unit), step in self.frozen.items()],
                "form": next((maps.form for maps in self.frozen_maps.values()), None),
            }
            checkpoint.save(self.lenses / CHECKPOINTS, self.step_number, state, notes)
        self.processes.wait()

    def restore(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        found = checkpoint.newest(self.lenses / CHECKPOINTS)
        if found is None:
            self.engine.start()
            return
        state, notes = found.state, found.notes
        self.engine.restore({k: v for k, v in state.items() if not k.startswith("frozen/")}, found.step)
        self.step_number = found.step
        self.marks = [
            Mark(step=mark["step"], losses={int(layer): losses for layer, losses in mark["losses"].items()})
            for mark in notes["marks"]
        ]
        self.frozen = {(layer, unit): step for layer, unit, step in notes["frozen"]}
        for layer in {layer for layer, _ in self.frozen}:
            prefix = f"frozen/{layer}/"
            tensors = {
                k.removeprefix(prefix): v.to(self.processes.device)
                for k, v in state.items()
                if k.startswith(prefix)
            }
            self.frozen_maps[layer] = FORMS[notes["form"]].from_tensors(
                tensors, lambda: self.recipe.reader.unembedding
            )
        log.info("going on after step %d of %d", found.step, self.plan.steps)

    def drop_checkpoints(self) -> None:
        """The lenses are written: nothing is to be taken up again."""
        shutil.rmtree(self.lenses / CHECKPOINTS, ignore_errors=True)
