"""Each figure of docs/metrics.md against scipy, in float64, on a small case."""

from functools import partial

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from alens.evaluation import sums as module
from alens.evaluation.reading_figures import Judged, ReadingFigures
from alens.evaluation.readings import Readings
from alens.evaluation.reference import Reference
from alens.evaluation.sums import ALL, BINS, ReadingSums, bin_of
from alens.machine import blocks
from alens.rows.agreement import ModelChoice
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import CompressedTeacher, ExactTeacher, Teacher
from alens.store.cache_reader import Targets

N, Q, D, V, K, G = 120, 3, 4, 40, 10, 6
CPU = torch.device("cpu")


def case() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """(Q, N, V) logits, (N, V) the model's, next tokens (some rows have none) and the bytes of each token."""
    random = torch.Generator().manual_seed(0)
    logits_QNV = 3 * torch.randn(Q, N, V, generator=random)
    model_NV = 2 * torch.randn(N, V, generator=random)
    next_N = torch.distributions.Categorical(logits=logits_QNV[0].double()).probs.argmax(-1).numpy()
    next_N = np.where(np.arange(N) % 3 == 0, np.arange(N) % V, next_N)
    next_N[::7] = NO_NEXT_TOKEN
    return logits_QNV, model_NV, next_N, np.arange(V) % 5


def chosen(model_NV: torch.Tensor, k: int) -> ModelChoice:
    best = model_NV.log_softmax(-1).topk(K)
    return ModelChoice.of(best.indices, best.values, k, V)


def exact(model_NV: torch.Tensor) -> ExactTeacher:
    """The teacher whose logits are given: W_U is the identity."""
    entropies = torch.special.entr(model_NV.double().softmax(-1)).sum(-1).float()
    return ExactTeacher(model_NV, torch.eye(V), torch.zeros(V), entropies)


def summed(
    logits_QNV: torch.Tensor,
    teacher: Teacher,
    model_NV: torch.Tensor,
    next_N: np.ndarray,
    bytes_V: np.ndarray,
) -> ReadingSums:
    readings = [partial(lambda all_NV, rows: all_NV[rows], logits_NV) for logits_NV in logits_QNV]
    sums = ReadingSums(len(readings), CPU, num_groups=G, figures=ALL)
    for part in (slice(0, 50), slice(50, N)):
        local = [
            Readings.one(
                partial(
                    lambda logits, start, rows: logits(slice(start + rows.start, start + rows.stop)),
                    reading,
                    part.start,
                )
            )
            for reading in readings
        ]
        cut = teacher
        if isinstance(teacher, ExactTeacher):
            cut = ExactTeacher(teacher.final_ND[part], teacher.W_U_DV, teacher.b_U_V, teacher.entropies[part])
        elif isinstance(teacher, CompressedTeacher):
            cut = CompressedTeacher(teacher.ids_NJ[part], teacher.weights_NJ[part], teacher.entropies[part])
        bytes_N = np.where(next_N == NO_NEXT_TOKEN, 0, bytes_V[next_N])
        sums.add(
            local,
            Reference(
                teacher=cut,
                first=chosen(model_NV[part], 1),
                several=chosen(model_NV[part], K),
                next_ids_N=torch.from_numpy(next_N[part]),
                next_bytes_N=torch.from_numpy(bytes_N[part]),
                groups_N=torch.arange(part.start, part.stop) % G,
            ),
        )
    return sums


@pytest.fixture(scope="module")
def figures_of() -> list[ReadingFigures]:
    logits_QNV, model_NV, next_N, bytes_V = case()
    judged = Judged(summed(logits_QNV, exact(model_NV), model_NV, next_N, bytes_V), seed=0, resamples=50)
    return [judged.figures(q) for q in range(Q)]


@pytest.fixture(scope="module")
def dense() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Q, N, V) log-probabilities of readings, (N, V) of the model, next tokens; float64."""
    logits_QNV, model_NV, next_N, _ = case()
    lens = scipy.special.log_softmax(logits_QNV.double().numpy(), axis=-1)
    return lens, scipy.special.log_softmax(model_NV.double().numpy(), axis=-1), next_N


Dense = tuple[np.ndarray, np.ndarray, np.ndarray]


def test_kl_is_scipys_relative_entropy(figures_of: list[ReadingFigures], dense: Dense) -> None:
    lens, model, _ = dense
    for q in range(Q):
        rows_N = scipy.special.rel_entr(np.exp(model), np.exp(lens[q])).sum(-1)
        assert rows_N == pytest.approx(scipy.stats.entropy(np.exp(model), np.exp(lens[q]), axis=-1))
        assert figures_of[q].kl == pytest.approx(rows_N.mean(), rel=1e-5)


def test_entropy_is_scipys(figures_of: list[ReadingFigures], dense: Dense) -> None:
    for q in range(Q):
        expected = scipy.stats.entropy(np.exp(dense[0][q]), axis=-1).mean()
        assert figures_of[q].entropy == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_is_of_rows_with_a_next_token(figures_of: list[ReadingFigures], dense: Dense) -> None:
    lens, _, next_N = dense
    inside = next_N != NO_NEXT_TOKEN
    for q in range(Q):
        expected = -scipy.special.log_softmax(lens[q], axis=-1)[inside, next_N[inside]].mean()
        assert figures_of[q].cross_entropy == pytest.approx(expected, rel=1e-5)


def test_bits_a_byte_divide_all_bits_by_all_bytes(figures_of: list[ReadingFigures], dense: Dense) -> None:
    lens, _, next_N = dense
    inside, bytes_V = next_N != NO_NEXT_TOKEN, case()[3]
    for q in range(Q):
        bits = -lens[q][inside, next_N[inside]].sum() / np.log(2)
        assert figures_of[q].bits_per_byte == pytest.approx(bits / bytes_V[next_N[inside]].sum(), rel=1e-5)


def test_agreements_are_shares_of_the_models_top_tokens(
    figures_of: list[ReadingFigures], dense: Dense
) -> None:
    lens, model, _ = dense
    for q in range(Q):
        assert figures_of[q].top1_agreement == pytest.approx((lens[q].argmax(1) == model.argmax(1)).mean())
        tens = [
            (set(np.argsort(-a)[:10]), set(np.argsort(-b)[:10])) for a, b in zip(lens[q], model, strict=True)
        ]
        assert figures_of[q].top10_agreement == pytest.approx(np.mean([len(a & b) / 10 for a, b in tens]))


def brute_force(lens_NV: np.ndarray, next_N: np.ndarray) -> tuple[float, list[tuple[int, float, float]]]:
    """Equations 2 and 3 of arXiv 1706.04599, a row at a time."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row_V, token in zip(np.exp(lens_NV), next_N, strict=True):
        if token == NO_NEXT_TOKEN:
            continue
        confidence = row_V.max()
        (place,) = [m for m in range(15) if m / 15 < confidence <= (m + 1) / 15]
        bins[place].append((confidence, row_V.argmax() == token))
    total = sum(map(len, bins))
    means = [(len(b), *np.mean(b, axis=0)) if b else (0, 0.0, 0.0) for b in bins]
    return sum(n / total * abs(accuracy - confidence) for n, confidence, accuracy in means), means


def test_calibration_is_the_brute_force_one(figures_of: list[ReadingFigures], dense: Dense) -> None:
    lens, _, next_N = dense
    for q in range(Q):
        expected, bins = brute_force(lens[q], next_N)
        assert figures_of[q].calibration_error == pytest.approx(expected, rel=1e-5)
        assert len(figures_of[q].reliability) == BINS
        for shown, (rows, confidence, accuracy) in zip(figures_of[q].reliability, bins, strict=True):
            assert shown.rows == rows
            if rows:
                assert shown.confidence == pytest.approx(confidence, rel=1e-5)
                assert shown.accuracy == pytest.approx(accuracy)
            else:
                assert shown.confidence is None and shown.accuracy is None
    assert figures_of[0].calibration_error != pytest.approx(figures_of[1].calibration_error, abs=0.1)


def test_a_bin_holds_its_upper_end() -> None:
    assert bin_of(
        torch.tensor([1e-9, 1 / 15 + 1e-6, 0.2, 0.2 + 1e-6, 1.0], dtype=torch.float64)
    ).tolist() == [0, 1, 2, 3, 14]


def test_a_reading_that_says_what_happens_as_often_as_it_does_is_calibrated() -> None:
    """Next tokens are drawn from the reading itself, so the error is that of 40,000 draws."""
    random = torch.Generator().manual_seed(1)
    rows = 40_000
    logits_NV = 2 * torch.randn(rows, V, generator=random)
    next_N = torch.multinomial(logits_NV.softmax(-1), 1, generator=random).squeeze(1)
    sums = ReadingSums(1, CPU, num_groups=1, figures=ALL)
    judged = Reference(
        teacher=exact(logits_NV),
        first=chosen(logits_NV, 1),
        several=chosen(logits_NV, K),
        next_ids_N=next_N,
        next_bytes_N=torch.zeros_like(next_N),
        groups_N=torch.zeros_like(next_N),
    )
    sums.add([Readings.one(lambda rows: logits_NV[rows])], judged)
    figures = Judged(sums, seed=0).figures(0)
    assert figures.calibration_error is not None and figures.calibration_error < 0.02
    assert (figures.top1_agreement, figures.top10_agreement) == (1.0, 1.0)
    assert figures.kl == pytest.approx(0, abs=1e-5)
    assert figures.bits_per_byte is None and figures.intervals["kl"] is None  # no bytes, and one sequence


@pytest.mark.parametrize(("block", "values"), [(1, 3), (7, 400), (64, 2**23)])
def test_blocks_do_not_change_sums(monkeypatch: pytest.MonkeyPatch, block: int, values: int) -> None:
    logits_QNV, model_NV, next_N, bytes_V = case()
    whole = summed(logits_QNV, exact(model_NV), model_NV, next_N, bytes_V)
    monkeypatch.setattr(blocks, "CPU_ROWS", block)
    monkeypatch.setattr(module, "MOST_VALUES", values)
    parts = summed(logits_QNV, exact(model_NV), model_NV, next_N, bytes_V)
    torch.testing.assert_close(parts.sums_GQC, whole.sums_GQC, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.bins_QM2, whole.bins_QM2)
    assert whole.rows_G.tolist() == [20.0] * G and whole.next_G.sum() == (next_N != NO_NEXT_TOKEN).sum()


def test_compressed_targets_change_kl_alone_and_by_no_bias() -> None:
    """Mean over 60 draws of the tail: within five standard errors of the dense KL; other figures are equal."""
    logits_QNV, model_NV, next_N, bytes_V = case()
    probs_NV = model_NV.double().softmax(-1).numpy()
    random, kls = np.random.default_rng(0), []
    order = np.argsort(-probs_NV, axis=1)
    for _ in range(60):
        tail_NV = probs_NV.copy()
        np.put_along_axis(tail_NV, order[:, :K], 0.0, axis=1)
        tail_NV /= tail_NV.sum(1, keepdims=True)
        draws = np.stack([random.choice(V, 4, p=row) for row in tail_NV])
        targets = Targets(
            ids_NK=order[:, :K],
            log_probs_NK=np.log(np.take_along_axis(probs_NV, order[:, :K], axis=1)).astype(np.float32),
            logsumexp_N=np.zeros(N, np.float32),
            entropy_N=scipy.stats.entropy(probs_NV, axis=1).astype(np.float32),
            tail_ids_NM=draws,
        )
        teacher = CompressedTeacher.from_targets(targets, CPU)
        judged = Judged(summed(logits_QNV[:1], teacher, model_NV, next_N, bytes_V), seed=0, resamples=1)
        kls.append(judged.figures(0).kl)
    exactly = Judged(
        summed(logits_QNV[:1], exact(model_NV), model_NV, next_N, bytes_V), seed=0, resamples=1
    ).figures(0)
    assert abs(np.mean(kls) - exactly.kl) < 5 * np.std(kls) / np.sqrt(60)
    assert judged.figures(0).entropy == pytest.approx(exactly.entropy)
    assert judged.figures(0).top10_agreement == exactly.top10_agreement
