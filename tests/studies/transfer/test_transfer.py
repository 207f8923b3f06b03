"""Lenses on other heads of their model, against the formula and the figures of `alens eval`."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import EvaluateSettings, FitRequest, evaluate, fit_lenses, load_lenses, open_cache
from alens.errors import RequestError
from alens.fit.settings import FitSettings
from alens.studies.transfer.result import GroupSums, TransferMatrix
from alens.studies.transfer.settings import TransferSettings
from alens.studies.transfer.transfer import transfer

ROWS = 300
HEADS = ((0, 1), (0, 4), (3, 1), (3, 4))


def run(lenses: Path, cache: Path, **given: object) -> TransferMatrix:
    return transfer(load_lenses(lenses), open_cache(cache), settings=TransferSettings(rows=ROWS, **given))


@pytest.fixture(scope="module")
def matrix(demo_lenses: Path, demo_cache: Path) -> TransferMatrix:
    return run(demo_lenses, demo_cache)


def kl_of_formula(lenses_at: Path, cache_at: Path, source: tuple[int, int], target: tuple[int, int]) -> float:
    """KL of z_j W_O_j pinv(W_O_i) W_i + b_i, from stored numbers alone."""
    cache, lenses = open_cache(cache_at), load_lenses(lenses_at)
    (shard,) = lenses.record.cache["held_out_shards"]
    size = cache.plan.settings.rows_per_shard
    rows = slice(shard * size, (shard + 1) * size)
    kept = np.flatnonzero(cache.read("rows/position", rows) >= 1)[:ROWS] + rows.start
    z_NE = torch.from_numpy(cache.z(target[0], kept)[:, target[1]].astype(np.float64))
    W_O_LHED = torch.from_numpy(cache.weights("W_O")).double()
    fitted, place = lenses.layer(source[0]), lenses.place(*source)
    moved_NE = z_NE @ W_O_LHED[target] @ torch.linalg.pinv(W_O_LHED[source])
    says_NV = (moved_NE @ fitted.weight_HEV[place].double() + fitted.bias_HV[place].double()).log_softmax(-1)
    final_ND = torch.from_numpy(cache.read("targets/final", kept).astype(np.float64))
    W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).double() for name in ("W_U", "b_U"))
    model_NV = (final_ND @ W_U_DV + b_U_V).log_softmax(-1)
    return float((model_NV.exp() * (model_NV - says_NV)).sum(1).mean())


def test_a_head_on_itself_differs_by_nothing(matrix: TransferMatrix) -> None:
    assert matrix.heads == HEADS and matrix.rows == ROWS
    for figure in ("kl", "cross_entropy"):
        assert np.diag(matrix.differences(figure)) == pytest.approx(np.zeros(4), abs=1e-4)
    assert matrix.seen_ST is not None
    assert np.diag(matrix.seen_ST) == pytest.approx(np.ones(4), abs=1e-4)
    assert (matrix.differences("kl")[~np.eye(4, dtype=bool)] > 0.01).all()


def test_own_lens_and_mean_output_are_those_of_eval(
    matrix: TransferMatrix, demo_lenses: Path, demo_cache: Path
) -> None:
    expected = evaluate(
        load_lenses(demo_lenses), open_cache(demo_cache), settings=EvaluateSettings(rows=ROWS)
    )
    for (layer, head), own in zip(matrix.heads, matrix.native, strict=True):
        assert own.kl == pytest.approx(expected.lens[layer][(1, 4).index(head)].kl, rel=1e-5)
    assert matrix.mean_output.kl == pytest.approx(expected.mean_output.kl, rel=1e-5)
    assert matrix.shards == expected.shards


@pytest.mark.parametrize(("source", "target"), [(0, 3), (3, 0), (1, 2), (2, 3)])
def test_without_matching_it_is_the_formula(
    demo_lenses: Path, demo_cache: Path, source: int, target: int
) -> None:
    alone = run(demo_lenses, demo_cache, match="none")
    expected = kl_of_formula(demo_lenses, demo_cache, HEADS[source], HEADS[target])
    assert alone.kl_ST[source, target] == pytest.approx(expected, rel=1e-3)


def test_layers_are_means_over_pairs_of_different_heads(matrix: TransferMatrix) -> None:
    pairs = {(pair.source, pair.target): pair for pair in matrix.by_layer}
    assert {key: pair.pairs for key, pair in pairs.items()} == {(0, 0): 2, (0, 3): 4, (3, 0): 4, (3, 3): 2}
    kl_ST = matrix.differences("kl")
    assert pairs[0, 3].kl == pytest.approx(kl_ST[:2, 2:].mean(), rel=1e-6)
    assert pairs[0, 0].kl == pytest.approx((kl_ST[0, 1] + kl_ST[1, 0]) / 2, rel=1e-6)
    assert pairs[3, 0].best_kl == pytest.approx(kl_ST[2:, :2].min(axis=0).mean(), rel=1e-6)
    best, cross_entropy_ST = kl_ST[2:, :2].argmin(axis=0), matrix.differences("cross_entropy")[2:, :2]
    assert pairs[3, 0].best_cross_entropy == pytest.approx(cross_entropy_ST[best, [0, 1]].mean(), rel=1e-6)
    assert pairs[0, 3].cross_entropy == pytest.approx(matrix.differences("cross_entropy")[:2, 2:].mean())
    assert pairs[3, 0].over_mean_output == pytest.approx(
        (matrix.kl_ST[2:, :2] - matrix.mean_output.kl).mean(), rel=1e-4
    )
    for pair in pairs.values():
        sources, targets = (
            [at for at, (layer, _) in enumerate(matrix.heads) if layer == wanted]
            for wanted in (pair.source, pair.target)
        )
        below = sum(matrix.kl_ST[s, t] < matrix.mean_output.kl for s in sources for t in targets if s != t)
        assert pair.beat_mean_output == below


def test_intervals_of_layers_draw_whole_sequences(matrix: TransferMatrix) -> None:
    """Intervals agree with the spread of a ratio over sequences, by the formula."""
    (pair,) = [pair for pair in matrix.by_layer if (pair.source, pair.target) == (3, 0)]

    def expected(sums: GroupSums, less_GT: np.ndarray) -> tuple[float, float]:
        differences_G = (sums.moved_GST[:, 2:, :2] - less_GT[:, None, :2]).mean(axis=(1, 2))
        mean = differences_G.sum() / sums.rows_G.sum()
        apart_G = differences_G - mean * sums.rows_G
        return mean, 1.96 * np.sqrt((apart_G**2).sum()) / sums.rows_G.sum()

    kl, cross_entropy = matrix.kl_sums, matrix.cross_entropy_sums
    for interval, value, (mean, half) in (
        (pair.kl_interval, pair.kl, expected(kl, kl.native_GT)),
        (
            pair.cross_entropy_interval,
            pair.cross_entropy,
            expected(cross_entropy, cross_entropy.native_GT),
        ),
        (
            pair.over_mean_output_interval,
            pair.over_mean_output,
            expected(kl, np.repeat(kl.mean_output_G[:, None], 4, axis=1)),
        ),
    ):
        assert interval is not None
        assert value == pytest.approx(mean, rel=1e-4)
        assert interval == pytest.approx((mean - half, mean + half), abs=0.25 * half)


def test_another_seed_draws_other_sequences(
    matrix: TransferMatrix, demo_lenses: Path, demo_cache: Path
) -> None:
    other = run(demo_lenses, demo_cache, seed=1)
    assert other.to_json()["bootstrap"]["seed"] == 1
    for pair, drawn in zip(matrix.by_layer, other.by_layer, strict=True):
        assert pair.kl == drawn.kl and pair.kl_interval != drawn.kl_interval
        assert pair.cross_entropy_interval != drawn.cross_entropy_interval


def test_lenses_beat_the_mean_output_where_all_of_the_interval_lies_below(matrix: TransferMatrix) -> None:
    pair = matrix.by_layer[1]
    for interval, beats in (((-2.0, -1.0), True), ((-2.0, 1.0), False), ((1.0, 2.0), False), (None, False)):
        assert dataclasses.replace(pair, over_mean_output_interval=interval).beats_mean_output == beats


def test_sums_of_sequences_make_the_matrices(matrix: TransferMatrix) -> None:
    for sums, found_ST in (
        (matrix.kl_sums, matrix.kl_ST),
        (matrix.cross_entropy_sums, matrix.cross_entropy_ST),
    ):
        assert sums.moved_GST.sum(axis=0) / sums.rows_G.sum() == pytest.approx(found_ST, rel=1e-6)
    assert matrix.kl_sums.rows_G.sum() == ROWS > matrix.cross_entropy_sums.rows_G.sum()


def test_one_sequence_says_nothing_of_others(demo_lenses: Path, demo_cache: Path) -> None:
    one_sequence = transfer(
        load_lenses(demo_lenses), open_cache(demo_cache), settings=TransferSettings(rows=1, heads=(1,))
    )
    assert one_sequence.sequences == 1
    for pair in one_sequence.by_layer:
        assert pair.kl_interval is pair.cross_entropy_interval is pair.over_mean_output_interval is None
        assert not pair.beats_mean_output


def test_the_best_source_is_another_head(matrix: TransferMatrix) -> None:
    for target, source in enumerate(matrix.best_sources()):
        others = np.delete(matrix.kl_ST[:, target], target)
        assert source != target and matrix.kl_ST[source, target] == others.min()


def test_layers_and_heads_can_be_chosen(demo_lenses: Path, demo_cache: Path, matrix: TransferMatrix) -> None:
    chosen = run(demo_lenses, demo_cache, layers=[3, 0, 3], heads=[4])
    assert chosen.heads == ((0, 4), (3, 4))
    assert chosen.kl_ST == pytest.approx(matrix.kl_ST[1::2, 1::2], rel=1e-4)


def test_its_json_is_plain(matrix: TransferMatrix) -> None:
    body = json.loads(json.dumps(matrix.to_json(), allow_nan=False))
    assert body["kl"][1][2] == matrix.kl_ST[1, 2]
    assert body["heads"][2]["native"]["kl"] == matrix.native[2].kl
    assert len(body["layers"]) == 4


@pytest.fixture(scope="module")
def tuned(residual_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lenses = tmp_path_factory.mktemp("tuned") / "lenses"
    settings = FitSettings(site="resid_post", lens="tuned", steps=20, batch_rows=128, eval_rows=256)
    fit_lenses(FitRequest(store=residual_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses


def test_lenses_on_the_residual_stream_are_put_on_other_layers_as_they_are(
    tuned: Path, residual_cache: Path
) -> None:
    residual = run(tuned, residual_cache, match="none")
    assert residual.heads == ((1, 0), (2, 0)) and residual.seen_ST is None
    lenses, cache = load_lenses(tuned), open_cache(residual_cache)
    (shard,) = lenses.record.cache["held_out_shards"]
    kept = np.flatnonzero(cache.read_shard("rows/position", shard) >= 1)[:ROWS] + shard * 512
    values_ND = torch.from_numpy(cache.site("resid_post", 2, kept))
    final_ND = torch.from_numpy(cache.read("targets/final", kept)).float()
    model_NV = (final_ND @ torch.from_numpy(cache.weights("W_U"))).log_softmax(-1)
    says_NV = lenses.layer(1).maps.logits(0, values_ND).log_softmax(-1)
    expected = float((model_NV.exp() * (model_NV - says_NV)).sum(1).mean())
    assert residual.kl_ST[0, 1] == pytest.approx(expected, rel=1e-4)
    assert [pair.pairs for pair in residual.by_layer] == [1, 1, 1, 1]
    assert np.diag(residual.differences("kl")) == pytest.approx([0, 0], abs=1e-6)


def test_a_cache_of_another_model_is_refused(demo_lenses: Path, rotated_cache: Path) -> None:
    with pytest.raises(RequestError, match="has other weights"):
        run(demo_lenses, rotated_cache)
