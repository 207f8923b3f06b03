"""Blocks of rows: all rows once, in order, none larger than the bound of the device."""

import pytest
import torch

from alens.machine import blocks


@pytest.mark.parametrize("num_rows", [0, 1, 63, 64, 65, 1000])
def test_blocks_cover_all_rows_in_order(num_rows: int) -> None:
    parts = list(blocks.row_blocks(num_rows, torch.device("cpu")))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(num_rows))


@pytest.mark.parametrize(("device", "bound"), [("cpu", blocks.CPU_ROWS), ("cuda", blocks.CUDA_ROWS)])
def test_no_block_is_larger_than_the_bound(device: str, bound: int) -> None:
    sizes = [part.stop - part.start for part in blocks.row_blocks(10_000, torch.device(device))]
    assert max(sizes) == bound


@pytest.mark.parametrize("num_rows", [0, 1, 1335, 1336, 4096])
def test_blocks_of_logits_cover_all_rows_evenly_within_their_bound(num_rows: int) -> None:
    parts = list(blocks.logit_blocks(num_rows, 50_257, torch.device("cpu")))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(num_rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes, default=0) * 50_257 * 4 <= blocks.LOGIT_BYTES
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_a_vocabulary_larger_than_the_bound_goes_row_by_row() -> None:
    parts = list(blocks.logit_blocks(3, 10**9, torch.device("cpu")))
    assert parts == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize(("device", "most"), [("cpu", blocks.CPU_TILE_ROWS), ("cuda", blocks.CUDA_ROWS)])
def test_a_tile_has_few_rows_and_a_part_of_the_vocabulary(device: str, most: int) -> None:
    rows, columns = blocks.tile_size(torch.device(device))
    assert rows == most
    assert columns < 50_257
    assert blocks.slices(2 * columns + 1, columns)[-1] == slice(2 * columns, 2 * columns + 1)
