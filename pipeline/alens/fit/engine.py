"""The DeepSpeed engine of a fit: made, stepped, and its state taken out and put back whole.

In: a `LensModule`, a ZeRO stage, a learning rate for each step. Out: steps taken, and `state()`: full float32
parameters and the optimiser's tensors by name, the same for every ZeRO stage and number of processes, so that a fit can
go on with others. DeepSpeed's own checkpoints are pickles that are tied to both.
"""

from collections.abc import Mapping
from typing import Any

import torch

from alens.errors import RequestError
from alens.fit import deepspeed_config
from alens.fit.distributed import Processes, printing_to_stderr
from alens.fit.lens_module import Active, LensModule
from alens.fit.optimiser import AVERAGE, BETAS, STATE, AveragedAdam
from alens.job.interruption import InterruptedWorkError, droppable
from alens.job.progress import ShouldStop, never
from alens.rows.teacher import CompressedTeacher, Teacher

NO_TEACHER = CompressedTeacher(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0), torch.zeros(1))
"""The teacher of a step in which nothing is trained."""


class Engine:
    """A lens module being trained. Its parameters may be partitioned."""

    def __init__(
        self,
        module: LensModule,
        processes: Processes,
        *,
        zero: int,
        batch_rows: int,
        lr: float,
        betas: tuple[float, float] = BETAS,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`config` is the user's DeepSpeed file. Raises `RequestError` for a configuration that does not work."""
        import deepspeed

        self.processes, self.zero = processes, zero
        settings = deepspeed_config.merged(
            config or {}, zero=zero, rows_a_process=batch_rows // processes.world_size
        )
        self.module = module.to(processes.device)
        optimizer = AveragedAdam(self.module.parameters(), lr=lr, betas=betas)
        try:
            with printing_to_stderr():
                self._engine, *_ = deepspeed.initialize(
                    model=self.module, optimizer=optimizer, config=settings
                )
            if zero == 0 and processes.world_size == 1:
                # There is nobody to share gradients with: DeepSpeed would copy all into one buffer, and back.
                self._engine.enable_backward_allreduce = False
        except (ValueError, TypeError, AssertionError, KeyError) as error:
            if not config:
                raise
            raise RequestError(
                f"DeepSpeed refuses its configuration: {' '.join(str(error).split())}"
            ) from error

    def step(
        self,
        z_NHE: Mapping[int, torch.Tensor],
        teacher: Teacher,
        lr: float,
        active: Active | None = None,
        should_stop: ShouldStop = never,
    ) -> torch.Tensor:
        """Take one step; gives the (L, U) losses of this rank's rows before it.

        Raises `InterruptedWorkError` on all processes when one of them is asked to stop during the step; parameters and
        moments are then those from before. On a GPU a step is short, and is always finished.
        """
        on_cpu = self.processes.device.type == "cpu"
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        with droppable(should_stop if on_cpu else never) as work:
            loss_LU: torch.Tensor = self._engine(z_NHE, teacher, active)
            # Heads share nothing: the sum trains each by its own mean loss.
            self._engine.backward(loss_LU.sum())
        if on_cpu and self.processes.any(work.left_out):
            raise InterruptedWorkError
        self._engine.step()
        return loss_LU.detach()

    @property
    def _optimiser(self) -> AveragedAdam:
        inner: AveragedAdam = self._engine.optimizer if self.zero == 0 else self._engine.optimizer.optimizer
        return inner

    def state(self, *, copy: bool = True) -> dict[str, torch.Tensor]:
        """Full float32 parameters (`name`) and moments (`name/exp_avg`, ...), on the CPU. Collective.

        Without `copy`, tensors may be those that are trained: for what is written at once. They take 16 bytes a weight.
        """
        copy = copy or self.zero > 0  # what was gathered may lie in one buffer, which safetensors refuses
        state = {}
        for name, parameter in self.module.named_parameters():
            parts = {name: self._parameter(parameter)}
            parts |= {f"{name}/{key}": self._moment(parameter, key) for key in STATE}
            for key, value in parts.items():
                whole = value.detach().float().cpu()
                state[key] = whole.clone() if copy else whole
        return state

    def averages(self) -> dict[str, torch.Tensor]:
        """Full averaged parameters by name, float32, on the device: what lenses are made from. Collective."""
        return {
            name: self._moment(parameter, AVERAGE).detach().float().to(self.processes.device).clone()
            for name, parameter in self.module.named_parameters()
        }

    def _parameter(self, parameter: torch.Tensor) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        whole: torch.Tensor = parameter if self.zero == 0 else safe_get_full_fp32_param(parameter)
        return whole

    def _moment(self, parameter: torch.Tensor, key: str) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        if self.zero == 0:
            local: torch.Tensor = self._engine.optimizer.state[parameter][key]
            return local
        whole: torch.Tensor = safe_get_full_optimizer_state(parameter, key)
        return whole

    def restore(self, state: Mapping[str, torch.Tensor], steps_taken: int) -> None:
        """Put `state()` back. Collective; every rank gives the whole state."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self.start()
        parameters = list(self.module.parameters())
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=self.zero == 3):
            for name, parameter in self.module.named_parameters():
                parameter.data.copy_(state[name])
        for name, parameter in self.module.named_parameters():
            whole = state[name].to(self.processes.device)
            moments = {key: state[f"{name}/{key}"].to(self.processes.device) for key in STATE}
            if self.zero == 0:
                for key, value in moments.items():
                    self._engine.optimizer.state[parameter][key].copy_(value)
            elif self.zero < 3:
                safe_set_full_fp32_param(parameter, whole)
                for key, value in moments.items():
                    safe_set_full_optimizer_state(parameter, value, key)
            else:
                self._set_partition(parameter, whole, moments)
        self._optimiser.count_from(steps_taken)

    def start(self) -> None:
        """Take a step that changes nothing: the optimiser makes its tensors in its first step."""
        device = self.processes.device
        nothing = {
            layer: torch.zeros(1, *self.module.design(layer).ground.whitening.mean_HE.shape, device=device)
            for layer in self.module.layers
        }
        self.step(nothing, NO_TEACHER, lr=0.0, active={layer: [] for layer in self.module.layers})
        self._optimiser.count_from(0)

    def _set_partition(
        self, parameter: torch.Tensor, whole: torch.Tensor, moments: Mapping[str, torch.Tensor]
    ) -> None:
        """Set this rank's part under ZeRO-3. DeepSpeed's own setters of whole values fail where parts are padded."""
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
