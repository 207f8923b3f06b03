"""Where a fit starts: at the closed form where there is one, and never ends above it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alens import load_lenses, open_cache
from alens.errors import RequestError, StoppedError
from alens.fit import final_lenses, judging
from alens.fit.fit_plan import FitPlan
from alens.fit.recipe import Recipe
from alens.fit.settings import FitSettings
from alens.lens.designs.linear import Linear
from alens.lens.record import LensRecord

Fit = Callable[..., LensRecord]
CLOSED = {"start": "closed-form"}


def recipe(store: Path, **settings: Any) -> Recipe:
    return Recipe(FitSettings(**settings), open_cache(store), torch.device("cpu"))


def tensors(lenses: Path) -> dict[str, torch.Tensor]:
    (file,) = lenses.glob("layer-*.safetensors")
    return load_file(file)


def log_lines(lenses: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lenses / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({}, "closed-form"),
        ({"lens": "low-rank"}, "closed-form"),
        ({"lens": "translator"}, "closed-form"),
        ({"objective": "reverse-kl"}, "closed-form"),
        ({"lens": "regression"}, "closed-form"),
        ({"lens": "summed"}, "mean-output"),
        ({"objective": "input-relevance"}, "mean-output"),
        ({"start": "mean-output"}, "mean-output"),
    ],
)
def test_the_default_is_the_closed_form_where_there_is_one(
    planted_store: Path, settings: dict[str, Any], start: str
) -> None:
    resolved = recipe(planted_store, **settings)
    assert resolved.settings.start == start and resolved.lacks_closed_form is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lens": "summed"}, "the design summed cannot start there"),
        ({"objective": "input-relevance"}, "is fitted to something else than the model's output"),
    ],
)
def test_a_closed_form_that_cannot_be_had_is_refused(
    planted_store: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=rf"start is closed-form, and .*{message}.* or take --start mean"):
        recipe(planted_store, **CLOSED, **settings)


@pytest.mark.parametrize("lens", ["linear", "low-rank"])
def test_a_few_steps_from_it_are_worth_many_from_the_mean_output(fit: Fit, tmp_path: Path, lens: str) -> None:
    given = {"lens": lens, "lr": 0.003, "steps": 5, "lens_options": {"rank": 4} if lens == "low-rank" else {}}
    closed, mean = fit("closed", **CLOSED, **given), fit("mean", **given)
    assert closed.fit["start"] == "closed-form" and mean.fit["start"] == "mean-output"
    assert closed.records()[0]["kl"] < 0.5 * mean.records()[0]["kl"]
    first = log_lines(tmp_path / "closed")[0]
    assert first["step"] == first["rows"] == 0
    assert first["held_out_loss"]["0"][0] < 0.5 * first["mean_output_loss"]
    assert log_lines(tmp_path / "mean")[0]["step"] == 5


@pytest.mark.parametrize("stop", [1, 7])
def test_a_stopped_fit_gives_the_same_lenses(fit: Fit, tmp_path: Path, stop: int) -> None:
    fit("whole", **CLOSED, lr=0.01)
    with pytest.raises(StoppedError):
        fit("stopped", **CLOSED, lr=0.01, stop=stop)
    fit("stopped", **CLOSED, lr=0.01)
    whole, stopped = tensors(tmp_path / "whole"), tensors(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    ours, theirs = (load_lenses(tmp_path / name).record.fit["best_step"] for name in ("whole", "stopped"))
    assert ours == theirs


def test_a_lens_that_every_step_makes_worse_is_its_start(
    fit: Fit, planted_store: Path, tmp_path: Path
) -> None:
    """The rate is far too high: the closed form stays the best of head 0."""
    record = fit("lenses", **CLOSED, lr=3.0, steps=10, heads=(0,))
    assert record.fit["best_step"] == {"0.0": 0}
    resolved = recipe(planted_store, heads=(0,), eval_rows=512)
    shards = tuple(record.cache["train_shards"])
    design = resolved.design(resolved.grounds(shards)[0], resolved.closed_forms(shards)[0])
    expected = design.maps().tensors()
    kept = tensors(tmp_path / "lenses")
    assert isinstance(design, Linear) and all(torch.equal(kept[name], expected[name]) for name in expected)
    assert not record.says_nothing(0, 0)


def test_all_held_out_rows_decide_between_a_lens_and_its_start(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluations see 64 rows, on which chance prefers a lens that is worse than its start on all."""
    monkeypatch.setattr(final_lenses, "CLOSE", float("inf"))
    given = {**CLOSED, "lr": 3.0, "steps": 10, "heads": (0,)}
    start = fit("start", **given).records()[0]["kl"]
    monkeypatch.setattr(judging, "ROWS_DURING_FIT", 64)
    losses, lower = judging.Judging.losses, iter(range(100))

    def falling(*arguments: Any) -> dict[int, list[float]]:
        return {layer: [-float(next(lower))] for layer in losses(*arguments)}

    monkeypatch.setattr(judging.Judging, "losses", falling)
    record = fit("put-back", **given)
    assert record.records()[0]["kl"] == start and record.fit["best_step"] == {"0.0": 0}
    monkeypatch.setattr(judging.Judging, "evaluates_on_all_rows", True)  # the guard is what put it back
    assert fit("not-put-back", **given).records()[0]["kl"] > start


def test_a_fit_that_was_begun_before_there_was_a_start_goes_on(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        fit("lenses", stop=7)
    with pytest.raises(RequestError, match=r"start is closed-form \(begun: mean-output\)"):
        fit("lenses", **CLOSED)
    record = fit("lenses", start=None)
    assert record.fit["start"] == "mean-output" and record.fit["steps"] == 20
    old = FitPlan("", {}, 1, (0,), (0,), (0,), (1,))
    assert old.start == "mean-output"
