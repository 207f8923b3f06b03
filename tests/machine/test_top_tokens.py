"""The largest logits, against `topk` over all of them."""

import pytest
import torch

from alens.machine.top_tokens import STRETCH, top_tokens


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("V", [10, 64, 11 * STRETCH - 1, 11 * STRETCH, 40 * STRETCH + 7])
def test_they_are_those_of_topk(V: int, k: int) -> None:
    logits_BV = torch.randn(50, V, generator=torch.Generator().manual_seed(V))
    top, expected = top_tokens(logits_BV, k), logits_BV.topk(k)
    assert torch.equal(top[0], expected.values)
    assert torch.equal(top[1], expected.indices)


def test_all_may_lie_in_one_stretch_or_behind_the_last() -> None:
    logits_BV = torch.zeros(2, 20 * STRETCH + 30)
    logits_BV[0, 3 * STRETCH : 3 * STRETCH + 10] = torch.arange(10.0) + 1
    logits_BV[1, 20 * STRETCH + 5 : 20 * STRETCH + 15] = torch.arange(10.0) + 1
    _, tokens_BK = top_tokens(logits_BV, 10)
    assert tokens_BK[0].tolist() == list(range(3 * STRETCH + 9, 3 * STRETCH - 1, -1))
    assert tokens_BK[1].tolist() == list(range(20 * STRETCH + 14, 20 * STRETCH + 4, -1))


def test_one_token_alone_may_lie_behind_the_last_stretch() -> None:
    values_BK, tokens_BK = top_tokens(torch.arange(20.0 * STRETCH + 1)[None], 2)
    assert tokens_BK.tolist() == values_BK.tolist() == [[20 * STRETCH, 20 * STRETCH - 1]]


def test_one_row_may_stand_for_all() -> None:
    """The mean output is one row, expanded."""
    row_V = torch.randn(20 * STRETCH + 3, generator=torch.Generator().manual_seed(0))
    _, tokens_BK = top_tokens(row_V.expand(4, -1), 5)
    assert tokens_BK.tolist() == [row_V.topk(5).indices.tolist()] * 4
