"""Lenses judged on a cache, beside baselines, against a dense computation."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from alens import EvaluateSettings, demo, evaluate, load_lenses, open_cache
from alens.cache.request import CacheRequest
from alens.cache.write_cache import write_cache
from alens.errors import DamageError, RequestError
from alens.evaluation.reading_figures import FIGURES, PairedDifference
from alens.evaluation.result import BaselineComparison, Evaluation, Wins
from alens.statistics.bootstrap import interval, resampled_means
from alens.store.schema import CacheSettings

from ..damage import flip

Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def evaluation(demo_lenses: Path, demo_cache: Path) -> Evaluation:
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


def test_it_judges_on_the_shards_that_the_fit_held_out(evaluation: Evaluation, demo_lenses: Path) -> None:
    assert list(evaluation.shards) == load_lenses(demo_lenses).record.cache["held_out_shards"] == [5]
    assert evaluation.rows == 16 * 63
    assert evaluation.teacher == "exact"


def test_it_finds_the_figures_that_the_fit_recorded(evaluation: Evaluation, demo_lenses: Path) -> None:
    record = load_lenses(demo_lenses).record
    for layer in (0, 3):
        for head, stated in zip(evaluation.lens[layer], record.held_out[str(layer)], strict=True):
            for name, value in stated.items():
                # The two best tokens of one row of head 0.4 are 1.7e-6 logits apart, and sums differ by as much.
                row = 1 / evaluation.rows if name.endswith("_agreement") else 0.0
                assert getattr(head, name) == pytest.approx(value, rel=1e-6, abs=1e-9 + row), name


def test_kl_of_a_lens_is_the_dense_one(
    evaluation: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_lenses: Path, demo_cache: Path
) -> None:
    (keep, model_NV), lens = dense, load_lenses(demo_lenses).layer(3)
    z_NHE = open_cache(demo_cache).read_shard("sites/attn.z/03", 5)[keep].astype(np.float64)
    for index, head in enumerate((1, 4)):
        logits_NV = z_NHE[:, head] @ lens.weight_HEV[index].double().numpy() + lens.bias_HV[index].numpy()
        assert evaluation.lens[3][index].kl == pytest.approx(kl(model_NV, logits_NV), rel=1e-3, abs=1e-5)


def test_the_unembedding_reads_the_heads_own_output(
    evaluation: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_cache: Path
) -> None:
    (keep, model_NV), cache = dense, open_cache(demo_cache)
    outputs_NHD = cache.head_outputs(5 * 1024 + keep, [3], [1, 4])[:, 0].astype(np.float64)
    scale_N1 = cache.read("targets/final_scale", 5 * 1024 + keep)[:, None]
    for index in range(2):
        part_ND = outputs_NHD[:, index] - outputs_NHD[:, index].mean(1, keepdims=True)
        part_ND = part_ND / scale_N1 * cache.weights("norm_gain") + cache.weights("norm_offset")
        logits_NV = part_ND @ cache.weights("W_U") + cache.weights("b_U")
        assert evaluation.unembedding[3][index].kl == pytest.approx(
            kl(model_NV, logits_NV), rel=1e-3, abs=1e-5
        )


def test_the_mean_output_is_that_of_the_training_shards(
    evaluation: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_cache: Path
) -> None:
    keep, model_NV = dense
    mean_V = open_cache(demo_cache).read("stats/output", slice(0, 5)).sum(0)
    logits_NV = np.log(mean_V / mean_V.sum())[None]
    assert evaluation.mean_output.kl == pytest.approx(kl(model_NV, logits_NV), rel=1e-3, abs=1e-5)
    top1 = (model_NV.argmax(1) == mean_V.argmax()).mean()
    assert evaluation.mean_output.top1_agreement == pytest.approx(top1, abs=3 / len(keep))


def test_the_mean_output_of_the_judged_rows_bounds_every_constant_reading(
    evaluation: Evaluation, dense: tuple[np.ndarray, np.ndarray]
) -> None:
    """KL to a constant q is at least KL to the rows' own mean: the entropy of the mean minus the mean entropy."""
    _, model_NV = dense
    own_V = np.log(np.exp(model_NV).mean(0))
    assert evaluation.mean_output.kl >= kl(model_NV, own_V[None]) - 1e-6


def test_compressed_targets_judge_as_the_exact_teacher_does(demo_lenses: Path, tmp_path: Path) -> None:
    """The same text with and without the exact teacher: without it, figures are unbiased estimates.

    With another seed: to the draws that it was fitted to, a lens is closer than to others of the same row.
    """
    text = tmp_path / "text.txt"
    text.write_text("\n".join(pq.read_table(demo.CORPUS)["text"].to_pylist()[:400]))
    lenses = copy_of_another_plan(load_lenses(demo_lenses))
    evaluations = []
    for seed in (0, 1):
        settings = CacheSettings(
            seq_len=64,
            rows_per_shard=1024,
            layers=(3,),
            top_k=16,
            tail_samples=16,
            exact_teacher=seed == 0,
            seed=seed,
        )
        store = tmp_path / f"store {seed}"
        write_cache(
            CacheRequest(model="demo", corpus=str(text), store=store, settings=settings, device="cpu")
        )
        evaluations.append(evaluate(lenses, open_cache(store), settings=EvaluateSettings(layers=(3,))))
    exact, compressed = evaluations
    assert (compressed.teacher, exact.teacher) == ("compressed", "exact")
    assert compressed.rows == exact.rows == len(exact.shards) * 16 * 63
    assert compressed.trained_on == exact.trained_on == "no"
    for a, b in zip(compressed.lens[3], exact.lens[3], strict=True):
        assert a.kl == pytest.approx(b.kl, abs=0.05)
        assert a.cross_entropy == pytest.approx(b.cross_entropy, rel=1e-3)


def copy_of_another_plan(lenses):
    """The same lenses, as if fitted on a cache of other text: then all shards are judged."""
    cache = {**lenses.record.cache, "plan": "another", "text": {"files": []}}
    lenses.record = dataclasses.replace(lenses.record, cache=cache)
    return lenses


def test_fewer_rows_can_be_asked_for(demo_lenses: Path, demo_cache: Path) -> None:
    evaluation = evaluate(
        load_lenses(demo_lenses), open_cache(demo_cache), settings=EvaluateSettings(layers=(0, 0), rows=100)
    )
    assert evaluation.rows == 100 and list(evaluation.lens) == [0] and len(evaluation.lens[0]) == 2


def test_the_result_is_plain_json(evaluation: Evaluation) -> None:
    body = json.loads(json.dumps(evaluation.to_json()))
    lenses = [one for one in body["readings"] if one["reading"] == "lens"]
    assert [(one["layer"], one["head"]) for one in lenses] == [(0, 1), (0, 4), (3, 1), (3, 4)]
    assert all(len(one["reliability"]) == 15 for one in lenses)
    assert body["readings"][0]["reading"] == "mean-output"
    assert body["readings"][0]["kl"] == evaluation.mean_output.kl


def test_the_repr_is_one_short_line(evaluation: Evaluation) -> None:
    text = repr(evaluation)
    assert text.startswith("<Evaluation: 4 lenses of 2 layers on 1,008 held-out rows, mean KL ")
    assert len(text) <= 200


def test_the_frame_has_a_row_a_head_and_reading(evaluation: Evaluation) -> None:
    frame = evaluation.to_frame().set_index(["layer", "head", "reading"])
    readings = ("lens", "mean-output", "unembedding", "scaled-write")
    heads = [(0, 1), (0, 4), (3, 1), (3, 4)]
    assert list(frame.index) == [(*head, reading) for head in heads for reading in readings]
    assert frame.loc[(3, 4, "lens"), "kl"] == evaluation.lens[3][1].kl
    interval = evaluation.lens[3][1].intervals["kl"]
    assert interval is not None
    assert frame.loc[(3, 4, "lens"), "intervals.kl.high"] == interval[1]
    difference = evaluation.comparisons["unembedding"][0][0].kl.difference
    assert frame.loc[(0, 1, "unembedding"), "lens_minus.kl.difference"] == difference
    assert not any("reliability" in column for column in frame.columns)


def test_the_model_itself_has_no_kl_and_agrees(evaluation: Evaluation) -> None:
    assert evaluation.model is not None and evaluation.model.kl == pytest.approx(0, abs=1e-3)
    assert evaluation.model.top1_agreement > 0.99
    for head in (*evaluation.lens[3], evaluation.mean_output):
        assert head.cross_entropy is not None and evaluation.model.cross_entropy is not None
        assert head.cross_entropy > evaluation.model.cross_entropy


def test_every_figure_lies_in_its_interval_and_intervals_are_of_sequences(evaluation: Evaluation) -> None:
    assert evaluation.sequences == 16
    for head in (head for heads in evaluation.lens.values() for head in heads):
        for name in ("kl", "cross_entropy", "top1_agreement", "top10_agreement", "entropy"):
            low, high = head.intervals[name] or (0.0, 0.0)
            assert low < getattr(head, name) < high
        assert head.intervals["bits_per_byte"] is None


def test_intervals_follow_from_the_kl_of_each_sequence(
    evaluation: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_lenses: Path, demo_cache: Path
) -> None:
    (keep, model_NV), lens, cache = dense, load_lenses(demo_lenses).layer(0), open_cache(demo_cache)
    z_NHE = cache.read_shard("sites/attn.z/00", 5)[keep].astype(np.float64)
    lens_NV = torch.from_numpy(z_NHE[:, 1] @ lens.weight_HEV[0].double().numpy() + lens.bias_HV[0].numpy())
    kl_N = (np.exp(model_NV) * (model_NV - lens_NV.log_softmax(-1).numpy())).sum(1)
    sequence_N = cache.read_shard("rows/sequence", 5)[keep]
    kl_G1 = np.array([[kl_N[sequence_N == sequence].sum()] for sequence in np.unique(sequence_N)])
    expected = interval(resampled_means(kl_G1, np.full(16, 63.0), seed=0)[:, 0], groups=16)
    assert evaluation.lens[0][0].intervals["kl"] == pytest.approx(expected, rel=1e-3)


def test_intervals_are_over_documents_where_they_are_known(
    evaluation: Evaluation, dense: tuple[np.ndarray, np.ndarray], demo_lenses: Path, demo_cache: Path
) -> None:
    """Four sequences a document: the sums of each are those of its sequences."""
    (keep, model_NV), lens, cache = dense, load_lenses(demo_lenses), open_cache(demo_cache)
    documents_B = np.arange(cache.plan.tokens.sequences) // 4
    cache.__dict__["documents"] = documents_B
    by_document = evaluate(lens, cache, settings=EvaluateSettings(layers=(0,)))
    assert (by_document.intervals_over, by_document.groups, by_document.sequences) == ("documents", 4, 16)
    assert (evaluation.intervals_over, evaluation.groups) == ("sequences", 16)
    body = by_document.to_json()
    assert (body["intervals_over"], body["groups"]) == ("documents", 4)
    z_NHE, maps = cache.read_shard("sites/attn.z/00", 5)[keep].astype(np.float64), lens.layer(0)
    lens_NV = torch.from_numpy(z_NHE[:, 1] @ maps.weight_HEV[0].double().numpy() + maps.bias_HV[0].numpy())
    kl_N = (np.exp(model_NV) * (model_NV - lens_NV.log_softmax(-1).numpy())).sum(1)
    document_N = documents_B[cache.read_shard("rows/sequence", 5)[keep]]
    kl_G1 = np.array([[kl_N[document_N == document].sum()] for document in np.unique(document_N)])
    expected = interval(resampled_means(kl_G1, np.full(4, 252.0), seed=0)[:, 0], groups=4)
    assert by_document.lens[0][0].intervals["kl"] == pytest.approx(expected, rel=1e-3)


def test_comparisons_are_differences_of_the_figures(evaluation: Evaluation) -> None:
    assert set(evaluation.comparisons) == {"mean-output", "unembedding", "scaled-write"}
    for layer in (0, 3):
        for head, plain, comparison in zip(
            evaluation.lens[layer],
            evaluation.unembedding[layer],
            evaluation.comparisons["unembedding"][layer],
            strict=True,
        ):
            assert comparison.kl.difference == pytest.approx(head.kl - plain.kl)
            assert comparison.cross_entropy is not None and head.cross_entropy is not None
            low, high = comparison.cross_entropy.interval or (0.0, 0.0)
            assert low < comparison.cross_entropy.difference < high
    with_mean = [one for heads in evaluation.comparisons["mean-output"].values() for one in heads]
    kls = [head.kl for heads in evaluation.lens.values() for head in heads]
    assert [one.kl.difference for one in with_mean] == pytest.approx(
        [kl - evaluation.mean_output.kl for kl in kls]
    )
    wins = evaluation.wins("mean-output")
    assert wins.heads == 4 and wins.better == sum(kl < evaluation.mean_output.kl for kl in kls)
    assert wins.better_apart == sum(one.kl.better_apart for one in with_mean) <= wins.surely_better


def test_wins_are_counted_by_difference_by_intervals_apart_and_by_the_paired_one(
    evaluation: Evaluation,
) -> None:
    differences = [
        PairedDifference(difference=-1.0, interval=(-2.0, 1.0), apart=False),
        PairedDifference(difference=-1.0, interval=(-2.0, -0.5), apart=False),
        PairedDifference(difference=-3.0, interval=(-4.0, -2.0), apart=True),
        PairedDifference(difference=-2.0, interval=(-4.0, -1.0), apart=False),
        PairedDifference(difference=3.0, interval=(2.0, 4.0), apart=True),
    ]
    made = {0: [BaselineComparison(kl=kl, cross_entropy=None) for kl in differences]}
    wins = dataclasses.replace(evaluation, comparisons={"unembedding": made}).wins("unembedding")
    assert wins == Wins(heads=5, better=4, better_apart=1, surely_better=3)


def test_the_ranges_name_the_best_and_the_worst_head(evaluation: Evaluation) -> None:
    kl = evaluation.ranges()["kl"]
    by_head = {
        (layer, head): f.kl
        for layer in (0, 3)
        for head, f in zip((1, 4), evaluation.lens[layer], strict=True)
    }
    assert kl is not None and kl.mean == pytest.approx(np.mean(list(by_head.values())))
    assert by_head[kl.lowest_head] == kl.lowest == min(by_head.values())
    assert by_head[kl.highest_head] == kl.highest == max(by_head.values())
    assert evaluation.ranges()["bits_per_byte"] is None


def test_threads_and_the_seed_change_no_figure(demo_lenses: Path, demo_cache: Path) -> None:
    arguments = (load_lenses(demo_lenses), open_cache(demo_cache))
    one = evaluate(*arguments, settings=EvaluateSettings(layers=(0,), rows=200, resamples=20))
    torch.set_num_threads(2)
    try:
        two = evaluate(*arguments, settings=EvaluateSettings(layers=(0,), rows=200, resamples=20, seed=1))
    finally:
        torch.set_num_threads(1)
    assert [f.kl for f in one.lens[0]] == pytest.approx([f.kl for f in two.lens[0]], rel=1e-6)
    assert one.lens[0][0].intervals != two.lens[0][0].intervals


def test_bytes_of_another_vocabulary_are_refused(demo_lenses: Path, demo_cache: Path) -> None:
    with pytest.raises(RequestError, match="token_bytes_V has 5 entries: the model has 4096 tokens"):
        evaluate(load_lenses(demo_lenses), open_cache(demo_cache), token_bytes_V=np.ones(5, dtype=np.int64))


def test_bits_per_byte_are_of_rows_with_a_next_token(demo_lenses: Path, demo_cache: Path) -> None:
    two_V = np.full(4096, 2)
    evaluation = evaluate(
        load_lenses(demo_lenses),
        open_cache(demo_cache),
        settings=EvaluateSettings(layers=(0,), rows=200, resamples=2),
        token_bytes_V=two_V,
    )
    for head in evaluation.lens[0]:
        assert head.cross_entropy is not None
        assert head.bits_per_byte == pytest.approx(head.cross_entropy / np.log(2) / 2)


def test_a_cache_of_another_model_is_refused(demo_lenses: Path, demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    model = dataclasses.replace(cache.plan.model, weights_sha256="0" * 64)
    cache.plan = dataclasses.replace(cache.plan, model=model)
    with pytest.raises(RequestError, match=r"holds lenses of demo, and the model of .* has other weights"):
        evaluate(load_lenses(demo_lenses), cache)


def test_directories_are_opened_and_anything_else_is_refused(demo_lenses: Path, demo_cache: Path) -> None:
    settings = EvaluateSettings(layers=(0,), rows=64, resamples=2)
    opened = evaluate(load_lenses(demo_lenses), open_cache(demo_cache), settings=settings)
    assert evaluate(str(demo_lenses), demo_cache, settings=settings).to_json() == opened.to_json()
    with pytest.raises(
        RequestError, match=r"^lenses is a Cache: give a lens directory, .*, or what load_lenses gave"
    ):
        evaluate(open_cache(demo_cache), load_lenses(demo_lenses))  # type: ignore[arg-type]
    with pytest.raises(
        RequestError, match=r"^cache is a Lenses: give the directory of a cache, or what open_cache gave"
    ):
        evaluate(demo_lenses, load_lenses(demo_lenses))  # type: ignore[arg-type]


def test_the_table_of_a_notebook_has_the_best_lens_first(evaluation: Evaluation) -> None:
    rows = evaluation.telling()
    assert [row["kl"] for row in rows] == sorted(
        one.kl for layer in evaluation.lens.values() for one in layer
    )
    assert {"unembedding.kl", "mean-output.kl", "intervals.kl.low"} <= set(rows[0])


def test_a_layer_without_lenses_is_refused(demo_lenses: Path, demo_cache: Path) -> None:
    with pytest.raises(RequestError, match="no lens for layer 1"):
        evaluate(load_lenses(demo_lenses), open_cache(demo_cache), settings=EvaluateSettings(layers=(1,)))


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
    flip(store / "arrays.zarr/targets/final/c.5.0", 1000)
    with pytest.raises(DamageError, match=r"targets/final.*shard 5"):
        evaluate(load_lenses(demo_lenses), open_cache(store))


def test_small_settings_leave_figures_finite(demo_lenses: Path, tmp_path: Path) -> None:
    """Another cache of the same model, with other lengths and k, is judged whole."""
    settings = CacheSettings(seq_len=16, rows_per_shard=64, max_rows=128, top_k=1, tail_samples=1)
    write_cache(
        CacheRequest(model="demo", corpus="demo", store=tmp_path / "c", settings=settings, device="cpu")
    )
    evaluation = evaluate(load_lenses(demo_lenses), open_cache(tmp_path / "c"))
    assert evaluation.shards == (0, 1) and evaluation.rows == 2 * 4 * 15
    assert evaluation.sequences == 2 * 4  # each shard has sequences of its own
    assert evaluation.top_tokens == 1
    for head in (head for heads in evaluation.lens.values() for head in heads):
        assert head.top1_agreement == head.top10_agreement
        values = [getattr(head, name) for name in FIGURES if name != "bits_per_byte"]
        assert np.isfinite(values).all() and head.bits_per_byte is None
