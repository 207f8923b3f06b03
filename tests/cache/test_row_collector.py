"""The values of a batch are put into their rows, or refused when float16 cannot hold them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alens.cache.row_collector import BatchArrays, RowCollector
from alens.errors import RunError


def put(largest: float, keep_bits: int | None = None) -> npt.NDArray[Any]:
    out = np.zeros((4, 2), np.float16)

    def place(name: str, values: npt.NDArray[Any], at_N: npt.NDArray[np.int64]) -> None:
        assert name == "sites/attn.z/03"
        out[at_N] = values

    collector = RowCollector(torch.device("cpu"), keep_bits, place)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half()
    batch = BatchArrays(
        values={"sites/attn.z/03": values},
        largest={"z of layer 3": torch.tensor(largest)},
        at_N=np.array([2, 0]),
    )
    collector.put(batch)
    collector.finish()
    return out


def test_copies_from_a_gpu_are_waited_for_there_one_batch_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --device cuda:1, GPU 0 knows nothing of the copy. Stand-ins take the place of CUDA's event and memory."""
    events: list[str] = []
    current = ["cuda:0"]

    @contextlib.contextmanager
    def on(device: torch.device) -> Iterator[None]:
        current.append(str(device))
        yield
        current.pop()

    class Event:
        def record(self) -> None:
            events.append(f"recorded on {current[-1]}")

        def synchronize(self) -> None:
            events.append("waited")

    def empty(*size: Any, pin_memory: bool, **more: Any) -> torch.Tensor:
        events.append(f"pinned on {current[-1]}")
        return new(*size, **more)

    new = torch.empty
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", on)
    placed: list[float] = []

    def check_finite(finite: torch.Tensor) -> None:
        if not finite:
            raise RunError("not finite")

    collector = RowCollector(
        torch.device("cuda", 1), None, lambda _, values, __: placed.append(values[0]), check_finite
    )
    for number in (1.0, 2.0, 3.0):
        device_values = {"z": torch.tensor([number]).half()}
        largest, finite = {"z of layer 3": torch.tensor(number)}, torch.tensor(number < 3)
        collector.put(BatchArrays(values=device_values, largest=largest, finite=finite, at_N=np.array([0])))
        largest["z of layer 3"].fill_(float("nan"))  # what was copied counts, not what the device has by then
        assert len(placed) == number - 1
    with pytest.raises(RunError, match="not finite"):
        collector.finish()
    assert events == [
        *["pinned on cuda:1"] * 3, "recorded on cuda:1",
        *["pinned on cuda:1"] * 3, "recorded on cuda:1", "waited",
        "recorded on cuda:1", "waited", "waited",
    ]  # fmt: skip


def test_rows_go_to_their_places() -> None:
    assert put(4.0).tolist() == [[3, 4], [0, 0], [1, 2], [0, 0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65_520.0, 1e6])
def test_what_float16_cannot_hold_is_an_error(value: float) -> None:
    with pytest.raises(RunError, match=r"z of layer 3 reaches .*, which float16 cannot hold"):
        put(value)


@pytest.mark.parametrize(("value", "keep_bits"), [(49_152.0, 0), (57_344.0, 1), (65_504.0, 9)])
def test_what_would_round_to_infinity_is_an_error(value: float, keep_bits: int) -> None:
    put(value - 32, keep_bits)
    with pytest.raises(RunError, match="which float16 cannot hold"):
        put(value, keep_bits)
