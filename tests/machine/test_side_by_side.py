"""Work side by side: results in order, one thread a piece, no gradients, errors raised."""

import threading

import pytest
import torch

from alens.machine.side_by_side import side_by_side


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads: int) -> None:
    assert side_by_side(lambda number: number**2, 20) == [number**2 for number in range(20)]
    assert torch.get_num_threads() == threads


def test_each_piece_has_one_thread_and_pieces_have_several(threads: int) -> None:
    together = threading.Barrier(threads)

    def piece(_: int) -> tuple[str, int]:
        together.wait(120)  # all at once, or it breaks
        return threading.current_thread().name, torch.get_num_threads()

    pieces = side_by_side(piece, threads)
    assert len({name for name, _ in pieces}) == threads
    assert {count for _, count in pieces} == {1}


def test_no_piece_records_gradients(threads: int) -> None:
    weight = torch.ones(3, requires_grad=True)
    assert not any(product.requires_grad for product in side_by_side(lambda _: weight * 2, 4))


def test_an_error_of_a_piece_is_raised(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 / (number - 2), 4)
