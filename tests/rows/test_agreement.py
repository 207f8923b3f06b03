"""Agreement under ties: the model agrees with itself in any dtype, and a reading that says nothing does not."""

import itertools

import numpy as np
import pytest
import torch

from alens.machine.top_tokens import STRETCH
from alens.rows.agreement import ModelChoice, largest, shares

V = 20 * STRETCH + 5


def stored(logits_NV: torch.Tensor, k: int, num_stored: int) -> ModelChoice:
    """The choice from log-probabilities in float16, as a cache holds them."""
    best = logits_NV.float().log_softmax(-1).topk(num_stored)
    return ModelChoice.of(best.indices, best.values.half().float(), k, logits_NV.shape[1])


def random(rows: int, vocabulary: int = V, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 10])
def test_without_ties_it_is_the_share_of_tokens_that_both_have(k: int) -> None:
    model_NV, reading_NV = random(60), random(60) + random(60, seed=1)
    best = model_NV.topk(16)
    agreement_N = ModelChoice.of(best.indices, best.values, k, V).agreement(reading_NV)
    expected = [
        len(set(ours.tolist()) & set(theirs.tolist())) / k
        for ours, theirs in zip(model_NV.topk(k).indices, reading_NV.topk(k).indices, strict=True)
    ]
    assert agreement_N.tolist() == pytest.approx(expected) and 0 < np.mean(expected) < 1


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("num_stored", [16, 64])
def test_a_model_in_bfloat16_agrees_with_itself(k: int, num_stored: int) -> None:
    """The model's logits are tied in many rows; the reading is of the same residual, in float32."""
    exact_NV = 12 + random(200) / 8
    choice = stored(exact_NV.bfloat16(), k, num_stored)
    assert int((choice.tied_NJ.sum(1) > 1).sum()) > 20  # there are ties
    assert choice.agreement(exact_NV).tolist() == pytest.approx([1.0] * 200)


@pytest.mark.parametrize("k", [1, 10])
def test_a_model_that_holds_all_tokens_equal_agrees_with_itself(k: int) -> None:
    same_NV = torch.full((3, V), 2.0)
    assert stored(same_NV, k, 16).agreement(same_NV).tolist() == [1.0] * 3


@pytest.mark.parametrize("k", [1, 10])
def test_a_reading_that_holds_all_tokens_equal_has_the_share_of_chance(k: int) -> None:
    agreement_N = stored(random(5), k, 16).agreement(torch.zeros(5, V))
    assert agreement_N.tolist() == pytest.approx([k / V] * 5, rel=0.5)


def test_tied_places_are_shared_as_all_ways_to_break_the_tie_share_them() -> None:
    logits_BV = torch.tensor([[5.0, 3.0, 3.0, 3.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]])
    for k in (1, 2, 3, 4):
        for logits_V, share_V in zip(
            logits_BV, shares(logits_BV, largest(logits_BV, k), k, torch.arange(6).expand(2, -1)), strict=True
        ):
            orders = [
                order
                for order in itertools.permutations(range(6))
                if all(logits_V[a] >= logits_V[b] for a, b in itertools.pairwise(order))
            ]
            chosen = [sum(v in order[:k] for order in orders) / len(orders) for v in range(6)]
            assert share_V.tolist() == pytest.approx(chosen)


def test_what_the_model_holds_equal_is_as_good() -> None:
    """The second and third token of three are tied for the second place: either counts, both count once."""
    ids, log_probs = torch.tensor([[0, 1, 2]]), torch.tensor([[-0.5, -2.0, -2.0]])
    choice = ModelChoice.of(ids, log_probs, 2, 6)
    for reading, expected in (
        ([9.0, 8.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([9.0, 0.0, 8.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 9.0, 8.0, 0.0, 0.0, 0.0], 0.5),
        ([9.0, 0.0, 0.0, 8.0, 0.0, 0.0], 1.0),  # the tie reaches the last stored token: more may be tied
    ):
        assert choice.agreement(torch.tensor([reading])).item() == pytest.approx(expected)
    closed = ModelChoice.of(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[-0.5, -2.0, -2.0, -3.0]]), 2, 6)
    assert closed.agreement(torch.tensor([[9.0, 0.0, 0.0, 8.0, 0.0, 0.0]])).item() == pytest.approx(0.5)


def test_rows_are_those_of_the_whole() -> None:
    model_NV, reading_NV = random(30), random(30, seed=2) + random(30)
    choice = stored(model_NV, 10, 16)
    parts = [choice.rows(rows).agreement(reading_NV[rows]) for rows in (slice(0, 7), slice(7, 30))]
    assert torch.equal(torch.cat(parts), choice.agreement(reading_NV))
