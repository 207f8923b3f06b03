"""Teachers: weights that sum to 1, whatever float16 does, and the exact distribution."""

import numpy as np
import pytest
import torch

from alens.machine import blocks
from alens.rows.teacher import CompressedTeacher, ExactTeacher, keeping_blocks
from alens.store.cache_reader import Targets

CPU = torch.device("cpu")


def targets(log_probs_NK: np.ndarray, num_samples: int = 3) -> Targets:
    N, K = log_probs_NK.shape
    random = np.random.default_rng(0)
    return Targets(
        ids_NK=np.tile(np.arange(K, dtype=np.uint16), (N, 1)),
        log_probs_NK=log_probs_NK.astype(np.float16),
        logsumexp_N=np.zeros(N, np.float32),
        entropy_N=np.ones(N, np.float32),
        tail_ids_NM=random.integers(K, 60, (N, num_samples)).astype(np.uint16),
    )


def random_log_probs(N: int, V: int, K: int) -> np.ndarray:
    logits_NV = torch.randn(N, V, generator=torch.Generator().manual_seed(0)) * 2
    return logits_NV.log_softmax(-1).topk(K, dim=-1).values.numpy()


@pytest.mark.parametrize("num_samples", [1, 16])
def test_weights_sum_to_one(num_samples: int) -> None:
    teacher = CompressedTeacher.from_targets(targets(random_log_probs(50, 60, 8), num_samples), CPU)
    torch.testing.assert_close(teacher.weights_NJ.sum(1), torch.ones(50))


def test_top_weights_are_the_stored_probabilities() -> None:
    stored = targets(random_log_probs(50, 60, 8))
    teacher = CompressedTeacher.from_targets(stored, CPU)
    expected = torch.from_numpy(np.exp(stored.log_probs_NK.astype(np.float32)))
    torch.testing.assert_close(teacher.weights_NJ[:, :8], expected)


def test_each_draw_weighs_its_equal_part_of_the_tail() -> None:
    stored = targets(np.log(np.array([[0.5, 0.25]])), num_samples=5)
    teacher = CompressedTeacher.from_targets(stored, CPU)
    torch.testing.assert_close(teacher.weights_NJ[0, 2:], torch.full((5,), 0.05), rtol=1e-3, atol=0)


def test_a_float16_sum_above_one_is_scaled_back_and_leaves_no_negative_tail() -> None:
    log_probs = np.full((1, 3), np.float16(np.log(1 / 3) + 0.0006))
    assert np.exp(log_probs.astype(np.float16).astype(np.float64)).sum() > 1
    teacher = CompressedTeacher.from_targets(targets(log_probs), CPU)
    assert bool((teacher.weights_NJ >= 0).all())
    torch.testing.assert_close(teacher.weights_NJ.sum(1), torch.ones(1))


def test_a_certain_model_gives_all_weight_to_its_token() -> None:
    teacher = CompressedTeacher.from_targets(targets(np.array([[0.0, -np.inf]])), CPU)
    assert teacher.weights_NJ.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]


def test_a_block_has_the_rows_of_its_slice() -> None:
    teacher = CompressedTeacher.from_targets(targets(random_log_probs(50, 60, 8)), CPU)
    logits_BV = torch.randn(4, 60, generator=torch.Generator().manual_seed(1))
    expected_B = teacher.block(slice(7, 11)).expect(logits_BV)
    ids, weights = teacher.ids_NJ[7:11], teacher.weights_NJ[7:11]
    torch.testing.assert_close(expected_B, (logits_BV.gather(1, ids) * weights).sum(1))


def test_the_exact_teacher_is_the_softmax_of_the_unembedded_residual() -> None:
    random = torch.Generator().manual_seed(0)
    final_ND = torch.randn(6, 4, generator=random).half()
    W_U_DV, b_U_V = torch.randn(4, 9, generator=random), torch.randn(9, generator=random)
    teacher = ExactTeacher(final_ND, W_U_DV, b_U_V, torch.zeros(6))
    expected = (final_ND.double() @ W_U_DV.double() + b_U_V.double()).softmax(-1)
    torch.testing.assert_close(
        teacher.block(slice(2, 5)).probs_BV.double(), expected[2:5], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("kind", ["compressed", "exact"])
def test_subtracting_the_teacher_leaves_rows_that_sum_to_zero(kind: str) -> None:
    if kind == "compressed":
        teacher = CompressedTeacher.from_targets(targets(random_log_probs(5, 60, 8)), CPU)
    else:
        teacher = ExactTeacher(torch.ones(5, 4).half(), torch.eye(4, 60), torch.zeros(60), torch.zeros(5))
    probs_BV = torch.full((5, 60), 1 / 60)
    teacher.block(slice(0, 5)).subtract_from(probs_BV)
    torch.testing.assert_close(probs_BV.sum(1), torch.zeros(5), rtol=0, atol=1e-6)
    assert bool((probs_BV < 0).any())


@pytest.mark.parametrize("kind", ["exact", "compressed"])
def test_the_tiles_of_a_block_add_up_to_the_block(kind: str) -> None:
    V = 40
    random = torch.Generator().manual_seed(2)
    if kind == "exact":
        teacher = ExactTeacher(torch.randn(9, 4), torch.randn(4, V), torch.randn(V), torch.zeros(9))
    else:
        ids_NJ = torch.randint(0, V, (9, 12), generator=random)  # some twice in a row
        teacher = CompressedTeacher(ids_NJ, torch.rand(9, 12, generator=random), torch.zeros(9))
    block, numbers_BV = teacher.block(slice(2, 9)), torch.randn(7, V, generator=random)
    expected, subtracted = block.expect(numbers_BV), numbers_BV.clone()
    block.subtract_from(subtracted)
    total, parts = torch.zeros(7), []
    for columns in (slice(0, 16), slice(16, 32), slice(32, 40)):
        tile, part = block.tile(columns), numbers_BV[:, columns].contiguous()
        total += tile.expect(part)
        tile.subtract_from(part)
        parts.append(part)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(torch.cat(parts, 1), subtracted)


def test_blocks_are_kept_as_far_as_memory_should_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    teacher = ExactTeacher(
        torch.randn(6, 4, generator=random),
        torch.randn(4, 9, generator=random),
        torch.zeros(9),
        torch.zeros(6),
    )
    monkeypatch.setattr(blocks, "LOGIT_BYTES", 4 * 9 * 4)  # four rows
    kept, parts = keeping_blocks(teacher), (slice(0, 3), slice(3, 6), slice(2, 3))
    first, second = ([kept.block(rows) for rows in parts] for _ in range(2))
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, False, True]
    for block, rows in zip(first, parts, strict=True):
        assert torch.equal(block.probs_BV, teacher.block(rows).probs_BV)
    assert kept.block(parts[0]) is not teacher.block(parts[0])
