"""`alens eval` on a cache with effects: which reading to believe, for which head."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import EvaluateSettings, evaluate, load_lenses, open_cache
from alens.effects.measure_effects import measure_effects
from alens.effects.settings import EffectRequest, EffectSettings
from alens.evaluation.result import Evaluation
from alens.job.worker import Worker
from alens.store.effect_reader import open_effects

from ..judged import of_heads


@pytest.fixture(scope="module")
def with_effects(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's cache with effects of two of four heads that have lenses, on held-out rows among others."""
    store = tmp_path_factory.mktemp("effects") / "cache"
    shutil.copytree(demo_cache, store)
    settings = EffectSettings(rows=1024, heads="0.1,3.4")
    measure_effects(EffectRequest(store=store, settings=settings, device="cpu", worker=Worker()))
    return store


@pytest.fixture(scope="module")
def evaluation(with_effects: Path, demo_lenses: Path) -> Evaluation:
    return evaluate(
        load_lenses(demo_lenses), open_cache(with_effects), settings=EvaluateSettings(resamples=50)
    )


def test_figures_are_those_of_dense_logits(
    evaluation: Evaluation, with_effects: Path, demo_lenses: Path
) -> None:
    cache, lenses, store = open_cache(with_effects), load_lenses(demo_lenses), open_effects(with_effects)
    judged_N = store.rows.shard_N == 5
    row_N = store.rows.row_N[judged_N]
    W_U_DV, scale_N = cache.weights("W_U"), cache.read("targets/final_scale", row_N)
    effect_NV = centred(store.delta(3)[judged_N][:, 0].astype(np.float64) @ W_U_DV)
    fitted, z_NE = lenses.layer(3), cache.z(3, row_N)[:, 4].astype(np.float64)
    assert fitted.mean_z_HE is not None and fitted.W_O_HED is not None
    log_q_NV = torch.from_numpy(z_NE @ fitted.weight_HEV[1].numpy() + fitted.bias_HV[1].numpy()).log_softmax(
        -1
    )
    part_ND = centred((z_NE - fitted.mean_z_HE[1].numpy()) @ fitted.W_O_HED[1].numpy())  # a layer norm
    written_NV = part_ND * cache.weights("norm_gain") / scale_N[:, None] @ W_U_DV
    said = {"lens": (log_q_NV - log_q_NV.exp().mean(0).log()).numpy(), "written": written_NV}
    assert evaluation.effects is not None and evaluation.effects.rows == len(row_N) > 200
    for name, added_NV in said.items():
        added_NV = centred(added_NV)
        figures = evaluation.effects.figures[3, 4][name]
        correlation = np.corrcoef(added_NV.ravel(), effect_NV.ravel())[0, 1]
        assert figures.correlation == pytest.approx(correlation, abs=2e-3)
        left = np.square(effect_NV - added_NV).sum() / np.square(effect_NV).sum()
        assert figures.explained_variance == pytest.approx(1 - left, rel=1e-2, abs=1e-3)
        low, high = figures.intervals["correlation"] or (0.0, 0.0)
        assert low < correlation < high
    assert evaluation.effects.heads[3, 4].size == pytest.approx(effect_NV.std(), rel=1e-3)


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(-1, keepdims=True)


def test_what_a_head_writes_is_what_the_model_loses_in_the_last_layer(evaluation: Evaluation) -> None:
    assert evaluation.effects is not None
    figures = evaluation.effects.figures[3, 4]
    assert (figures["written"].correlation or 0) > 0.3 > abs(figures["lens"].correlation or 0) - 0.5
    assert (figures["written"].top10_sign_agreement or 0) > 0.5


def test_the_document_and_the_table_say_which_reading_to_believe(
    run_alens: Any, evaluation: Evaluation, with_effects: Path, demo_lenses: Path
) -> None:
    asked = ("eval", demo_lenses, with_effects, "--rows", "200")
    body = json.loads(run_alens(*asked, "--json").stdout)
    assert [(one["layer"], one["head"]) for one in body["effects"]["heads"]] == [(0, 1), (3, 4)]
    by_key = {(one["layer"], one["head"], one["reading"]): one for one in body["readings"]}
    assert evaluation.effects is not None
    for reading in ("lens", "written", "unembedding", "scaled-write"):
        entry = by_key[3, 4, reading]
        assert -1 <= entry["correlation"] <= 1 and 0 <= entry["sign_agreement"] <= 1 and entry["kl"] > 0
        assert {"kl", "correlation", "explained_variance"} <= entry["intervals"].keys()
    written = evaluation.effects.figures[3, 4]["written"].correlation
    assert by_key[3, 4, "written"]["correlation"] == pytest.approx(written)
    assert "correlation" not in by_key[3, 1, "lens"] and "correlation" not in by_key[3, 4, "mean-output"]
    frame = evaluation.to_frame().set_index(["layer", "head", "reading"])
    assert frame.loc[(3, 4, "written"), "correlation"] == written
    table = run_alens(*asked).stdout
    shown = table.split("readings beside the effect")[1].split("lens better")[0]
    assert "written" in shown and " 3.4 " in shown and max(map(len, shown.splitlines())) <= 80


def test_without_effects_nothing_is_said_of_them(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    body = json.loads(run_alens("eval", demo_lenses, demo_cache, "--rows", "64", "--json").stdout)
    assert body["effects"] is None and "written" not in {one["reading"] for one in body["readings"]}


def test_effect_lenses_are_judged_beside_and_by_themselves(
    run_alens: Any, with_effects: Path, demo_lenses: Path, tmp_path: Path
) -> None:
    fit = run_alens("fit", with_effects, tmp_path / "effects", "--lens", "effect")
    assert fit.code == 0, fit.stderr
    few = ("--heads", "3.4", "--baselines", "written", "--rows", "64", "--json")
    beside = run_alens("eval", demo_lenses, with_effects, "--also", tmp_path / "effects", *few)
    assert beside.code == 0, beside.stderr
    (effect,), (written,) = of_heads(beside.stdout, "effect"), of_heads(beside.stdout, "written")
    assert effect["correlation"] > 0.5 * written["correlation"] and effect["kl"] > 0
    alone = run_alens("eval", tmp_path / "effects", with_effects, *few)
    assert alone.code == 0, alone.stderr
    (lens,) = of_heads(alone.stdout)
    assert lens["correlation"] == pytest.approx(effect["correlation"], abs=0.05)
