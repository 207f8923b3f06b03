"""Provisional."""

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch


class AveragedAdam(torch.optim.Optimizer):
    """Adam whose iterates are averaged."""

    AVERAGE = "average"
    STATE: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", AVERAGE)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        power: float = 3.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "power": power, "steps_taken": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["steps_taken"] += 1
            t, (b1, b2) = group["steps_taken"], group["betas"]
            share = (group["power"] + 1) / (t + group["power"])
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                    state["average"] = p.detach().clone()
                m, v, a = (state[k] for k in self.STATE)
                m.lerp_(p.grad, 1 - b1)
                v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                p.addcdiv_(
                    m,
                    v.sqrt().div_(math.sqrt(1 - b2**t)).add_(group["eps"]),
                    value=-group["lr"] / (1 - b1**t),
                )
                a.lerp_(p, min(1.0, share))


def learning_rate(peak: float, step: int) -> float:
    return peak / math.sqrt(1 + step / 50)
