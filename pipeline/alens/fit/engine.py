"""The DeepSpeed engine of a fit: made, stepped, and its state taken out and put back whole.

In: a `LensModule`, a ZeRO stage, a learning rate a step. Out: steps taken, and `state()`: full float32
parameters and Adam moments by name, the same whatever the ZeRO stage and the number of processes, so that
a fit can go on with others. DeepSpeed's own checkpoints are pickles tied to both.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from alens.fit.distributed import Processes
from alens.fit.module import LensModule
from alens.teacher import CompressedTeacher, Teacher

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's state of a parameter, as torch names it."""

BETAS = (0.9, 0.999)
"""Adam's decay rates; 0.99 for the second made no difference."""


class Engine:
    """A lens module being trained. `module` is the bare module; parameters may be partitioned."""

    def __init__(
        self, module: LensModule, processes: Processes, *, zero: int, batch_rows: int, lr: float
    ) -> None:
        import deepspeed

        self.processes, self.zero = processes, zero
        self.module = module.to(processes.device)
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=lr, betas=BETAS, weight_decay=0.0)
        config = {
            "train_micro_batch_size_per_gpu": batch_rows // processes.world_size,
            "gradient_accumulation_steps": 1,
            "zero_optimization": {"stage": zero},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**62,
        }
        self._engine, *_ = deepspeed.initialize(model=self.module, optimizer=optimizer, config=config)

    def step(self, z_NHE: Mapping[int, torch.Tensor], teacher: Teacher, lr: float) -> torch.Tensor:
        """One step; gives the (L, H) losses of this rank's rows before it."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        loss_LH: torch.Tensor = self._engine(z_NHE, teacher)
        # Heads share nothing: the sum trains each by its own mean loss.
        self._engine.backward(loss_LH.sum())
        self._engine.step()
        return loss_LH.detach()

    @contextlib.contextmanager
    def gathered(self) -> Iterator[LensModule]:
        """The module with whole parameters, on every rank."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.module.parameters()), enabled=self.zero == 3):
            yield self.module

    def state(self) -> dict[str, torch.Tensor]:
        """Full float32 parameters (`name`) and moments (`name/exp_avg`, ...), on the CPU. Collective."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        found = {}
        for name, parameter in self.module.named_parameters():
            if self.zero == 0:
                moments = self._engine.optimizer.state[parameter]
                whole = [parameter.detach(), *(moments[key] for key in MOMENTS)]
            else:
                whole = [
                    safe_get_full_fp32_param(parameter),
                    *(safe_get_full_optimizer_state(parameter, key) for key in MOMENTS),
                ]
            for key, value in zip((name, *(f"{name}/{key}" for key in MOMENTS)), whole, strict=True):
                found[key] = value.detach().float().cpu().clone()
        return found

    def restore(self, state: Mapping[str, torch.Tensor], steps_taken: int) -> None:
        """Put `state()` back. Collective; every rank gives the whole state."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._make_moments()
        parameters = list(self.module.parameters())
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=self.zero == 3):
            for name, parameter in self.module.named_parameters():
                parameter.data.copy_(state[name])
        for name, parameter in self.module.named_parameters():
            whole = state[name].to(self.processes.device)
            moments = {key: state[f"{name}/{key}"].to(self.processes.device) for key in MOMENTS}
            if self.zero == 0:
                for key, value in moments.items():
                    self._engine.optimizer.state[parameter][key].copy_(value)
            elif self.zero < 3:
                safe_set_full_fp32_param(parameter, whole)
                for key, value in moments.items():
                    safe_set_full_optimizer_state(parameter, value, key)
            else:
                self._set_partition(parameter, whole, moments)
        inner: Any = self._engine.optimizer if self.zero == 0 else self._engine.optimizer.optimizer
        for kept in inner.state.values():
            kept["step"] = torch.tensor(float(steps_taken))  # Adam's bias correction counts from here

    def _make_moments(self) -> None:
        """A step at learning rate zero on a row of zeros: Adam makes its state in its first step only."""
        device = self.processes.device
        nothing = {
            layer: torch.zeros(1, *coordinates.mean_HE.shape, device=device)
            for layer, coordinates in self.module.whitening.items()
        }
        one_11 = torch.ones(1, 1, device=device)
        self.step(nothing, CompressedTeacher(torch.zeros_like(one_11).long(), one_11, one_11[0]), lr=0.0)

    def _set_partition(
        self, parameter: torch.Tensor, whole: torch.Tensor, moments: Mapping[str, torch.Tensor]
    ) -> None:
        """ZeRO-3: this rank's part. DeepSpeed's own setters of whole values fail where parts are padded."""
        from deepspeed.utils import (
            safe_get_local_fp32_param,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        size = safe_get_local_fp32_param(parameter).numel()

        def part(value: torch.Tensor) -> torch.Tensor:
            padded = torch.nn.functional.pad(
                value.flatten(), (0, size * self.processes.world_size - value.numel())
            )
            return padded[size * self.processes.rank :][:size]

        safe_set_local_fp32_param(parameter, part(whole))
        for key, value in moments.items():
            safe_set_local_optimizer_state(parameter, part(value), key)
