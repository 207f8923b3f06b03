"""What the pretended GPU refuses, and what it counts as a wait; `test_refusals` runs each function in a process with two.

PyTorch's messages are those of CUDA, so far as code could look for them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from .transfers import PINNED
from .waits import WAITS

Tensor = torch.Tensor


def on_gpu(*shape: int, device: str = "cuda") -> Tensor:
    """Numbers from 0."""
    return torch.arange(int(np.prod(shape)), dtype=torch.float32).view(shape).to(device)


def refuses(says: str, *calls: Callable[[], Any], kind: type[Exception] = RuntimeError) -> None:
    """Each call raises an error that says so."""
    for call in calls:
        with pytest.raises(kind, match=says):
            call()


def waits(call: Callable[[], Any]) -> int:
    """How many waits are in a call; where they are refused, it fails if there is one."""
    before = WAITS.counts.total()
    call()
    count = WAITS.counts.total() - before
    torch.cuda.set_sync_debug_mode("error")
    try:
        if count:
            refuses("called a synchronizing CUDA operation", call)
        else:
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return count


def check_tensors_say_where_they_are() -> None:
    x = on_gpu(2, 3)
    assert x.is_cuda and not x.is_cpu and x.device == torch.device("cuda", 0) == x.mT.device == (x + 1).device
    assert on_gpu(2, device="cuda:1").get_device() == 1
    assert torch.zeros_like(x).is_cuda and x.new_ones(2).is_cuda and torch.ones(2, device=x.device).is_cuda
    assert (
        x.cpu().device.type
        == x.to("cpu").device.type
        == torch.empty_like(x, device="cpu").device.type
        == "cpu"
    )
    assert torch.nn.Linear(3, 2).to("cuda")(x).is_cuda
    assert torch.cuda.is_available() and torch.cuda.device_count() == 2


def check_values_are_those_of_the_cpu() -> None:
    x = torch.linspace(-1, 1, 12).view(3, 4)
    y = x.to("cuda")
    for work in (
        lambda t: t @ t.mT,
        lambda t: t.softmax(-1).topk(2).values,
        lambda t: t[1:, ::2].cumsum(0),
        lambda t: t[t > 0],
    ):
        assert torch.equal(work(x), work(y).cpu())
    y[1] = 7
    y.unsqueeze_(0).squeeze_(0)[0, 0].fill_(3)
    assert y.shape == (3, 4) and y[0, 0].item() == 3 and y[1].tolist() == [7.0] * 4


def check_gradients_are_those_of_the_cpu() -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        w = torch.linspace(0, 1, 6, device=device).view(2, 3).requires_grad_()
        rows = torch.nn.utils.rnn.pad_sequence([w[0], (w * w)[1, :2]])
        (rows.logsumexp(0).to("cpu") if device == "cuda" else rows.logsumexp(0)).sum().backward()
        assert w.grad is not None and w.grad.device.type == device
        gradients.append(w.grad.cpu())
    assert torch.equal(*gradients)


def check_devices_do_not_mix() -> None:
    x, y, other = on_gpu(2, 2), torch.ones(2, 2), on_gpu(2, 2, device="cuda:1")
    index = torch.tensor([0, 1])
    refuses(
        "Expected all tensors to be on the same device",
        lambda: x + y,
        lambda: y * x,
        lambda: x @ y,
        lambda: x + other,
        lambda: torch.cat([x, y]),
        lambda: torch.stack([x, y]),
        lambda: x.index_select(0, index),
        lambda: y.add_(x),
        lambda: torch.where(x > 0, x, y),
        lambda: x.gather(0, index[None]),
        lambda: torch.nn.functional.embedding(index, x),
        lambda: torch.nn.Linear(2, 2)(x),
        lambda: torch.cat([x.flatten(), torch.tensor(1.0)[None]]),
        lambda: torch.tensor(1.0).add_(x[0, 0]),
        lambda: x.__setitem__(index.to("cuda"), y),
    )
    refuses("indices should be either on cpu or on the same device", lambda: y[index.to("cuda")])
    assert (x + torch.tensor(1.0)).is_cuda and (x * 2).is_cuda  # single numbers may come from the CPU
    assert (x + other.to("cuda:0")).is_cuda


def check_numpy_gets_nothing() -> None:
    x = on_gpu(3)
    refuses("can't convert cuda:0", x.numpy, lambda: np.asarray(x), lambda: np.exp(x), kind=TypeError)
    refuses("can't convert cuda:0", lambda: torch.from_numpy(np.array(x)), kind=TypeError)
    assert x.cpu().numpy().tolist() == [0, 1, 2]


def check_memory_of_the_gpu_cannot_be_pinned() -> None:
    refuses("only dense CPU tensors can be pinned", on_gpu(3).pin_memory)
    refuses(
        "(?i)only dense CPU tensors can be pinned", lambda: torch.empty(3, device="cuda", pin_memory=True)
    )
    plain = torch.ones(3)
    assert plain.pin_memory().is_pinned() and torch.empty(2, pin_memory=True)[1:].is_pinned()
    assert not plain.is_pinned() and not PINNED.holds(torch.ones(3))


def check_looks_at_values_wait() -> None:
    x = on_gpu(4)
    for look in (
        x[0].item,
        x.tolist,
        lambda: float(x.sum()),
        lambda: int(x[1]),
        lambda: bool((x > 0).any()),
        lambda: f"{x.mean():.2f}",
        x.nonzero,
        lambda: x[x > 1],
        lambda: x.masked_select(x > 1),
        x.unique,
        lambda: torch.equal(x, x),
        lambda: x.long().bincount(),
        lambda: x.repeat_interleave(x.long()),
        lambda: torch.linalg.inv(torch.eye(2, device="cuda")),
    ):
        assert waits(look) > 0
    for work in (
        lambda: x.topk(2),
        lambda: x.where(x > 1, 0),
        lambda: x[1:3],
        lambda: x[x.long()],
        lambda: x.sort(),
    ):
        assert waits(work) == 0


def check_copies_wait_unless_they_are_asynchronous_and_pinned() -> None:
    x, plain = on_gpu(4), torch.ones(4)
    pinned = plain.pin_memory()
    for copy in (
        x.cpu,
        lambda: x.to("cpu"),
        lambda: plain.to("cuda"),
        lambda: plain.to("cuda", non_blocking=True),  # from memory that is not pinned
        lambda: torch.empty(4).copy_(x, non_blocking=True),
        lambda: torch.empty(4, pin_memory=True).copy_(x),
        lambda: torch.tensor([1.0, 2.0], device="cuda"),
        lambda: x[[0, 1]],
        lambda: x[torch.tensor([0, 1])],
        lambda: x.copy_(plain),
    ):
        assert waits(copy) > 0
    for copy in (
        lambda: pinned.to("cuda", non_blocking=True),
        lambda: torch.empty(4, pin_memory=True).copy_(x, non_blocking=True),
        lambda: x.to("cpu", non_blocking=True),
        lambda: x.copy_(pinned, non_blocking=True),
        lambda: torch.zeros(4, device="cuda"),
        lambda: x.to(torch.float16),
    ):
        assert waits(copy) == 0


def check_an_asynchronous_copy_arrives_when_it_is_waited_for() -> None:
    x, early, late = on_gpu(2), torch.empty(2, pin_memory=True), torch.empty(2, pin_memory=True)
    event = torch.cuda.Event()
    early.copy_(x, non_blocking=True)
    event.record()
    late.copy_(x, non_blocking=True)
    assert early.isnan().all() and late.isnan().all()
    event.synchronize()
    assert early.tolist() == [0, 1] and late.isnan().all()
    x.add_(1)  # later work does not change what is on its way
    torch.cuda.synchronize()
    assert late.tolist() == [0, 1]


def check_an_event_marks_the_work_of_the_current_gpu() -> None:
    event, target = torch.cuda.Event(), torch.empty(2, pin_memory=True)
    target.copy_(on_gpu(2, device="cuda:1"), non_blocking=True)
    event.record()
    event.synchronize()
    assert target.isnan().all()
    with torch.cuda.device(1):
        event.record()
    event.synchronize()
    assert target.tolist() == [0, 1]


def check_memory_under_way_to_the_gpu_is_left_alone() -> None:
    source = torch.ones(2).pin_memory()
    source.to("cuda", non_blocking=True)
    source.fill_(2)
    refuses("was written to before", torch.cuda.synchronize)
    source.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    source.fill_(3)
    torch.cuda.synchronize()


def check_threads_have_the_gpu_too() -> None:
    def work() -> Tensor:
        with torch.cuda.device(1):
            return torch.ones(2).to("cuda")

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result().device.index == 1
    assert torch.ones(2).to("cuda").device.index == 0


def a_step_of_a_fit_does_not_wait() -> None:
    """With stand-ins for Triton's kernels: PyTorch operations that look at no value. Imports DeepSpeed, so not a quick one."""
    from alens.fit.objectives import cross_entropy_triton

    from ..gpu import test_steps

    def kernel(
        x_UNF: Tensor, weight_HFV: Tensor, bias_HV: Tensor, ids_NJ: Tensor, weights_NJ: Tensor, **how: Any
    ) -> Any:
        gradients = torch.zeros_like(weight_HFV), torch.zeros_like(bias_HV)
        losses = []
        teacher_NV = x_UNF.new_zeros(len(ids_NJ), bias_HV.shape[1]).scatter_add(1, ids_NJ, weights_NJ)
        for x_NF, head in zip(
            x_UNF, range(len(bias_HV)) if how["heads"] is None else how["heads"], strict=True
        ):
            logits_NV = x_NF @ weight_HFV[head] + bias_HV[head]
            losses.append((logits_NV.logsumexp(-1) - (teacher_NV * logits_NV).sum(-1)).mean(-1))
            errors_NV = (logits_NV.softmax(-1) - teacher_NV) / len(teacher_NV)
            gradients[0][head], gradients[1][head] = x_NF.mT @ errors_NV, errors_NV.sum(0)
        return torch.stack(losses), *gradients

    def scale(gradients_HX: Tensor, scales_H: Tensor) -> None:
        gradients_HX.mul_(scales_H.view(-1, *[1] * (gradients_HX.ndim - 1)))

    stand_ins = {
        "available": lambda _: None,
        "trial": lambda *_: None,
        "cross_entropy_and_gradients": kernel,
        "scale": scale,
    }
    with mock.patch.multiple(cross_entropy_triton, **stand_ins):
        for active in (None, {0: [0, 2], 2: [1]}):
            test_steps.test_a_step_does_not_wait_for_the_gpu(torch.device("cuda", 0), active)
