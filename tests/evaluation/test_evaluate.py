"""Lenses judged on a cache, beside baselines, against a dense computation."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import evaluate, load_lenses, open_cache
from alens.cache.request import CacheRequest
from alens.cache.run import write_cache
from alens.errors import DamageError, RequestError
from alens.evaluation.evaluate import Evaluation
from alens.store.schema import CacheSettings

Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def found(demo_lenses: Path, demo_cache: Path) -> Evaluation:
    return evaluate(load_lenses(demo_lenses), open_cache(demo_cache))


@pytest.fixture(scope="module")
def dense(demo_cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """(rows kept of shard 5, the model's (N, V) log-probabilities there), float64."""
    cache = open_cache(demo_cache)
    keep = np.flatnonzero(cache.read_shard("rows/position", 5) > 0)
    final_ND = torch.from_numpy(cache.read_shard("targets/final", 5)[keep]).double()
    logits_NV = final_ND @ torch.from_numpy(cache.weights("W_U")).double() + torch.from_numpy(
        cache.weights("b_U")
    )
    return keep, logits_NV.log_softmax(-1).numpy()


def kl(model_NV: np.ndarray, logits_NV: np.ndarray) -> float:
    lens_NV = torch.from_numpy(logits_NV).log_softmax(-1).numpy()
    return float((np.exp(model_NV) * (model_NV - lens_NV)).sum(1).mean())


def test_it_judges_on_the_shards_that_the_fit_held_out(found: Evaluation, demo_lenses: Path) -> None:
    assert list(found.shards) == load_lenses(demo_lenses).record.cache["held_out_shards"] == [5]
    assert found.rows == 16 * 63
    assert found.teacher == "exact"


def test_it_finds_the_figures_that_the_fit_recorded(found: Evaluation, demo_lenses: Path) -> None:
    record = load_lenses(demo_lenses).record
    for layer in (0, 3):
        for head, stated in zip(found.lens[layer], record.held_out[str(layer)], strict=True):
            assert dataclasses.asdict(head) == pytest.approx(stated, rel=1e-6)


def test_kl_of_a_lens_is_the_dense_one(
    found: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_lenses: Path, demo_cache: Path
) -> None:
    (keep, model_NV), lens = dense, load_lenses(demo_lenses).layer(3)
    z_NHE = open_cache(demo_cache).read_shard("sites/attn.z/03", 5)[keep].astype(np.float64)
    for index, head in enumerate((1, 4)):
        logits_NV = z_NHE[:, head] @ lens.weight_HEV[index].double().numpy() + lens.bias_HV[index].numpy()
        assert found.lens[3][index].kl == pytest.approx(kl(model_NV, logits_NV), rel=1e-3, abs=1e-5)


def test_the_unembedding_reads_the_heads_own_output(
    found: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_cache: Path
) -> None:
    (keep, model_NV), cache = dense, open_cache(demo_cache)
    outputs_NHD = cache.head_outputs(5 * 1024 + keep, [3], [1, 4])[:, 0].astype(np.float64)
    for index in range(2):
        logits_NV = outputs_NHD[:, index] @ cache.weights("W_U") + cache.weights("b_U")
        assert found.unembedding[3][index].kl == pytest.approx(kl(model_NV, logits_NV), rel=1e-3, abs=1e-5)


def test_the_mean_output_is_that_of_the_training_shards(
    found: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_cache: Path
) -> None:
    keep, model_NV = dense
    mean_V = open_cache(demo_cache).read("stats/output", slice(0, 5)).sum(0)
    logits_NV = np.log(mean_V / mean_V.sum())[None]
    assert found.mean_output.kl == pytest.approx(kl(model_NV, logits_NV), rel=1e-3, abs=1e-5)
    top1 = (model_NV.argmax(1) == mean_V.argmax()).mean()
    assert found.mean_output.top1_agreement == pytest.approx(top1, abs=2 / len(keep))


def test_the_mean_output_of_the_judged_rows_bounds_every_constant_reading(
    found: Evaluation, dense: tuple[np.ndarray, np.ndarray]
) -> None:
    """KL of a constant q is at least that of the rows' own mean: entropy of the mean less mean entropy."""
    _, model_NV = dense
    own_V = np.log(np.exp(model_NV).mean(0))
    assert found.mean_output.kl >= kl(model_NV, own_V[None]) - 1e-6


def test_compressed_targets_judge_as_the_exact_teacher_does(
    demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    """The same text cached without the exact teacher: all six shards, an unbiased estimate of the same.

    With another seed: to the draws that it was fitted to, a lens is closer than to others of the same row.
    """
    settings = dataclasses.replace(open_cache(demo_cache).plan.settings, exact_teacher=False, seed=1)
    request = CacheRequest(model="demo", corpus="demo", store=tmp_path / "c", settings=settings, device="cpu")
    write_cache(request)
    lenses = load_lenses(demo_lenses)
    other = copy_of_another_plan(lenses)
    compressed = evaluate(other, open_cache(tmp_path / "c"), layers=[3])
    exact = evaluate(other, open_cache(demo_cache), layers=[3])
    assert (compressed.teacher, exact.teacher) == ("compressed", "exact")
    assert compressed.rows == exact.rows == 6 * 16 * 63
    for a, b in zip(compressed.lens[3], exact.lens[3], strict=True):
        assert a.kl == pytest.approx(b.kl, abs=0.05)
        assert a.cross_entropy == pytest.approx(b.cross_entropy, rel=1e-3)


def copy_of_another_plan(lenses):
    """The same lenses, as if fitted on another cache: then all shards are judged."""
    lenses.record = dataclasses.replace(lenses.record, cache={**lenses.record.cache, "plan": "another"})
    return lenses


def test_fewer_rows_can_be_asked_for(demo_lenses: Path, demo_cache: Path) -> None:
    found = evaluate(load_lenses(demo_lenses), open_cache(demo_cache), layers=[0], num_rows=100)
    assert found.rows == 100 and list(found.lens) == [0]


def test_the_result_is_plain_json(found: Evaluation) -> None:
    body = json.loads(json.dumps(found.to_json()))
    assert [(head["layer"], head["head"]) for head in body["heads"]] == [(0, 1), (0, 4), (3, 1), (3, 4)]
    assert body["mean_output"]["kl"] == found.mean_output.kl


def test_a_cache_of_another_model_is_refused(demo_lenses: Path, demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    model = dataclasses.replace(cache.plan.model, weights_sha256="0" * 64)
    cache.plan = dataclasses.replace(cache.plan, model=model)
    with pytest.raises(RequestError, match=r"holds lenses of demo, and the model of .* has other weights"):
        evaluate(load_lenses(demo_lenses), cache)


def test_a_layer_without_lenses_is_refused(demo_lenses: Path, demo_cache: Path) -> None:
    with pytest.raises(RequestError, match="no lens for layer 1"):
        evaluate(load_lenses(demo_lenses), open_cache(demo_cache), layers=[1])


def test_a_held_out_shard_that_is_gone_is_never_replaced_by_a_training_shard(
    demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    store = copy_of(demo_cache)
    (store / "MANIFEST.json").unlink()
    (store / "commits" / "000005.json").unlink()
    with pytest.raises(RequestError, match="lacks shard 5, which the fit held out"):
        evaluate(load_lenses(demo_lenses), open_cache(store))


def test_a_damaged_held_out_shard_is_named(demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    file = store / "arrays.zarr/targets/final/c.5.0"
    blob = bytearray(file.read_bytes())
    blob[1000] ^= 1
    file.write_bytes(blob)
    with pytest.raises(DamageError, match=r"targets/final.*shard 5"):
        evaluate(load_lenses(demo_lenses), open_cache(store))


def test_small_settings_leave_figures_finite(demo_lenses: Path, tmp_path: Path) -> None:
    """Another cache of the same model, with other lengths and k, is judged whole."""
    settings = CacheSettings(seq_len=16, rows_per_shard=64, max_rows=128, top_k=1, tail_samples=1)
    write_cache(
        CacheRequest(model="demo", corpus="demo", store=tmp_path / "c", settings=settings, device="cpu")
    )
    found = evaluate(load_lenses(demo_lenses), open_cache(tmp_path / "c"))
    assert found.shards == (0, 1) and found.rows == 2 * 4 * 15
    figures = [head for heads in found.lens.values() for head in heads]
    assert all(np.isfinite(dataclasses.astuple(head)).all() for head in figures)
