"""The published training step: what it computes, what each switch changes, and that the benchmark runs."""

import importlib.util
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alens import demo
from alens.lens.whitening import Whitening
from alens.model import models
from alens.planning.costs import Costs, FitCosts, break_even

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LAYER, H, E, V = 2, 6, 32, 4096
SENTENCES = ["He took her hand.", "It was a long way home, and the night was cold.", "No."]


@pytest.fixture(scope="module")
def published() -> Iterator[ModuleType]:
    """The script, loaded by its path; its parts are found beside it, as when it is run."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("published", BENCHMARKS / "published.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    yield script
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if name.startswith("against_published"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def step(published: ModuleType) -> ModuleType:
    return published.race.step


@pytest.fixture(scope="module")
def batch(published: ModuleType, model: models.LoadedModel) -> Any:
    return sys.modules["against_published.text"].padded(SENTENCES, model)


def lenses_of(step: ModuleType, recipe: Any, model: models.LoadedModel) -> Any:
    """Lenses in coordinates that are not quite white, from a mean output that is not quite flat."""
    random = torch.Generator().manual_seed(0)
    whitening = Whitening(
        mean_HE=torch.randn(H, E, generator=random),
        scale_HEE=torch.eye(E) + 0.1 * torch.randn(H, E, E, generator=random),
    )
    log_mean_V = torch.randn(V, generator=random).log_softmax(0)
    return step.HeadLenses(recipe, model, LAYER, whitening, log_mean_V)


def recipe_of(published: ModuleType, **switches: Any) -> Any:
    return replace(published.PUBLISHED, name="test", **switches)


def test_the_published_loss_is_what_a_plain_computation_gives(
    published: ModuleType, step: ModuleType, model: models.LoadedModel, batch: Any
) -> None:
    """Last column of the padded batch, heads summed, KL(model || lens): from the Hugging Face model alone."""
    huggingface: Any = AutoModelForCausalLM.from_pretrained(demo.MODEL, dtype=torch.float32)
    kept: list[torch.Tensor] = []
    huggingface.requires_grad_(False)
    projection = huggingface.transformer.h[LAYER].attn.c_proj
    projection.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    with torch.no_grad():
        logits_BTV = huggingface(batch.tokens_BT, attention_mask=batch.real_BT).logits
    expected = 0.0
    for sentence in range(len(SENTENCES)):
        z_HE = kept[0][sentence, -1].unflatten(0, (H, E)).double()
        lens_V = torch.zeros(V, dtype=torch.float64)
        for head in range(H):
            output_D = z_HE[head] @ projection.weight[head * E : (head + 1) * E].double()
            lens_V += output_D @ huggingface.lm_head.weight.T.double()
        model_V = logits_BTV[sentence, -1].double().log_softmax(0)
        expected += float((model_V.exp() * (model_V - lens_V.log_softmax(0))).sum()) / len(SENTENCES)
    recipe = recipe_of(published)
    loss = step.loss(recipe, lenses_of(step, recipe, model), model, batch, LAYER)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def loss_of(step: ModuleType, recipe: Any, model: models.LoadedModel, batch: Any) -> float:
    lenses = lenses_of(step, recipe, model)
    return float(step.loss(recipe, lenses, model, batch, LAYER).detach())


def test_vectorised_is_the_same_mathematics(
    published: ModuleType, step: ModuleType, model: models.LoadedModel, batch: Any
) -> None:
    gradients = []
    for vectorised in (False, True):
        recipe = recipe_of(published, vectorised=vectorised)
        lenses = lenses_of(step, recipe, model)
        step.loss(recipe, lenses, model, batch, LAYER).backward()
        gradients.append(torch.stack([parameter.grad for parameter in lenses.weights]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)
    assert float(gradients[0].abs().max()) > 1e-4


@pytest.mark.parametrize("switch", ["each_head", "every_position", "from_mean_output"])
def test_a_switch_changes_the_loss(
    published: ModuleType, step: ModuleType, model: models.LoadedModel, batch: Any, switch: str
) -> None:
    plain = recipe_of(published, vectorised=True)
    changed = replace(plain, **{switch: True})
    assert loss_of(step, changed, model, batch) != pytest.approx(loss_of(step, plain, model, batch), rel=1e-3)


def test_the_map_on_z_starts_as_the_same_function(
    published: ModuleType, step: ModuleType, model: models.LoadedModel, batch: Any
) -> None:
    plain = recipe_of(published, vectorised=True)
    on_z = replace(plain, coordinates="z")
    assert loss_of(step, on_z, model, batch) == pytest.approx(loss_of(step, plain, model, batch), rel=1e-4)
    assert lenses_of(step, on_z, model).weights[0].shape == (E, V)


def test_every_position_leaves_out_padding_and_position_0(
    published: ModuleType, step: ModuleType, batch: Any
) -> None:
    lengths = batch.real_BT.sum(1)
    assert len(set(lengths.tolist())) == len(SENTENCES)
    every_BT = step.rows_read(recipe_of(published, every_position=True), batch)
    assert every_BT.sum(1).tolist() == (lengths - 1).tolist()
    last_BT = step.rows_read(recipe_of(published), batch)
    assert last_BT.sum(1).tolist() == [1] * len(SENTENCES)
    assert batch.real_BT[last_BT].tolist() == [0, 1, 0]  # padding in all but the longest, as published


@pytest.mark.parametrize("coordinates", ["output", "z", "white"])
def test_folded_lenses_are_the_same_function_of_z(
    published: ModuleType, step: ModuleType, model: models.LoadedModel, coordinates: str
) -> None:
    recipe = recipe_of(published, coordinates=coordinates, from_mean_output=True)
    lenses = lenses_of(step, recipe, model)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in lenses.weights:
            weight.copy_(0.1 * torch.randn(weight.shape, generator=random))
        z_NHE = torch.randn(5, H, E, generator=random)
        weight_HEV, bias_HV = lenses.folded()
        found_NHV = torch.einsum("nhe,hev->nhv", z_NHE, weight_HEV) + bias_HV
        expected_NHV = lenses.together(lenses.inputs(z_NHE))
    torch.testing.assert_close(found_NHV, expected_NHV, rtol=1e-4, atol=1e-4)


def test_mixtures_that_mean_nothing_are_refused(published: ModuleType) -> None:
    for switches in ({"coordinates": "logits"}, {"coordinates": "white"}, {"no_padding": True}):
        with pytest.raises(ValueError):
            recipe_of(published, **switches)


SMALL = [
    "--rows",
    "1024",
    "--seq-len",
    "16",
    "--eval-rows",
    "64",
    "--max-steps",
    "2",
    "--batch",
    "2",
    "--accumulate",
    "1",
    "--budget-s",
    "60",
]


@pytest.mark.slow
def test_every_method_runs_and_is_reported(
    published: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = published.main([*SMALL, "--no-pays", "--out", str(tmp_path)])
    names = [recipe.name for recipe in (*published.LADDER, *published.OTHERS)]
    *methods, long = [method["name"] for method in document["methods"]]
    assert methods == [published.ALENS, published.LIVE, *names]
    assert "faults mended" in long and long.endswith(", 30 times alens's seconds")
    cached, live, *others = document["methods"]
    # The same rows in the same order: the model in the loop gives the lenses of the cache.
    assert live["last_kl"] == pytest.approx(cached["last_kl"], abs=1e-3)
    assert live["last_kl"] < document["baselines"]["unembedding"] - 0.1
    for method in others:
        assert method["steps"] == 2 and method["best_kl"] > 0 and len(method["levels"]) == 4
        assert all(level["seconds"] >= 0 and level["ratio"] >= 0 for level in method["levels"])
    assert document["bounds_by_equal_steps"][0]["published_seconds_for_them"] >= 0
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "results.json").is_file()


def test_switches_ask_for_one_recipe(published: ModuleType) -> None:
    asked = published.arguments(
        ["--vectorised", "--every-position", "--whitened", "--lr", "0.03", "--accumulate", "2"]
    )
    (recipe,) = published.recipes(asked)
    assert recipe.mended() == (
        "vectorised, every position, coordinates white, from mean output, lr 0.03, accumulate 2"
    )
    assert published.recipes(published.arguments([])) == (*published.LADDER, *published.OTHERS)
    (named,) = published.recipes(published.arguments(["--only", "published"]))
    assert named == published.PUBLISHED


@pytest.mark.slow
def test_when_a_cache_pays_is_the_same_fit_both_ways(published: ModuleType) -> None:
    document = published.main([*SMALL, "--no-loop", "--only", "published"])
    assert set(document["when_a_cache_pays"]) == {"one", "all"}
    for row in document["when_a_cache_pays"].values():
        assert row["start_s"] > 0
        assert row["kl_from_cache"] == pytest.approx(row["kl_model_in_loop"], abs=1e-3)
        assert row["stage_one"] > 0


def test_a_cache_pays_from_the_passes_of_the_plans_formula(published: ModuleType) -> None:
    """Model and text are there on both sides; what is left is (c + w) / (f + g - max(r, g))."""
    costs = Costs(forward_s=400e-6, compute_s=469e-6, write_s=55e-6)
    fit = FitCosts(heads=6, read_s=2e-6, fit_s=191e-6)
    measured = {"stage_one": 524.0, "fit_from_cache": 191.0, "fit_model_in_loop": 591.0}
    assert published.ours.break_even_passes(**measured) == pytest.approx(1.31)
    assert break_even(costs, fit, 1.0) == pytest.approx(1.31)
    slower = {**measured, "fit_from_cache": 600.0}
    assert published.ours.break_even_passes(**slower) == math.inf


def test_a_level_that_was_not_reached_is_a_lower_bound(published: ModuleType) -> None:
    race, report = published.race, published.report

    def curve(*points: tuple[float, float]) -> Any:
        return race.Curve(name="", note="", points=[race.Point(s, 1, 1, kl) for s, kl in points])

    alens = curve((10, 2.1), (20, 2.0))
    slow = curve((0, 6.0), (100, 4.0), (200, 3.2), (400, 2.8))
    row = report.level_row(slow, 2.02, 20, 1.98)
    assert (row["reached"], row["seconds"], row["ratio"]) == (False, 400, 20)
    assert row["extrapolated_s"] > 400
    assert report.level_row(slow, 3.5, 10, 1.98) == {
        "level": 3.5,
        "reached": True,
        "seconds": 200,
        "ratio": 20.0,
    }
    early = curve((0, 6.0), (100, 5.5), (200, 5.2), (400, 4.9))
    assert report.level_row(early, 3.5, 20, 1.98)["extrapolated_s"] is None  # most of the way is left
    decaying = replace(slow, note="decay")
    assert report.level_row(decaying, 2.02, 20, 1.98)["extrapolated_s"] is None  # its end is its schedule's
    assert report.method(slow, alens)["levels"][0]["level"] == 2.02
