"""Lenses that end before the last step: the best of each is kept, while the others are trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alens import FitRequest, fit_lenses
from alens.errors import StoppedError
from alens.fit import curves, fit_plan, optimiser, trainer
from alens.fit.convergence import CONVERGED
from alens.fit.settings import FitSettings
from alens.fit.training_loop import FitSummary

from ..stops import Stop

Fit = Callable[..., FitSummary]
FROZEN_AFTER = 10


@pytest.fixture
def fit(planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit("name", converge=((layer, unit), ...), stop=..., zero=..., SETTINGS)`: 20 steps, evaluated after 5, 10, 15 and 20."""
    monkeypatch.setattr(trainer, "evaluation_steps", lambda *_: frozenset({5, 10, 15, 20}))

    def call(
        name: str,
        *,
        converge: tuple[tuple[int, int], ...] = (),
        stop: int = 10**6,
        zero: int = 0,
        store: Path = planted_store,
        **settings: Any,
    ) -> FitSummary:
        def ending(self: curves.Curves, key: curves.Loss, tolerance: float) -> str | None:
            return CONVERGED if key in converge and self.history[key][-1].step >= FROZEN_AFTER else None

        monkeypatch.setattr(curves.Curves, "ending", ending)
        given = {"steps": 20, "batch_rows": 128, "eval_rows": 512, "start": "mean-output", **settings}
        request = FitRequest(
            store=store, lenses=tmp_path / name, settings=FitSettings(**given), zero=zero, device="cpu"
        )
        asked = Stop(stop)
        return fit_lenses(request, report=asked.report, should_stop=asked)

    return call


def layer(lenses: Path) -> dict[str, torch.Tensor]:
    (file,) = lenses.glob("layer-*.safetensors")
    return {name: value for name, value in load_file(file).items() if name != "W_O"}


@pytest.mark.parametrize("zero", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_steps_of_many_rows_remember_fewer_steps(fit: Fit, tmp_path: Path, zero: int) -> None:
    large = {"batch_rows": 2048, "steps": 5, "lr": 0.05, "zero": zero}
    fit("scaled", **large)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimiser, "MOST_AT_ONCE", 1.0)
        fit("plain", **large)
        patch.setattr(fit_plan, "BETAS", (0.9**2, 0.999**2))
        fit("by hand", **large)
    scaled, plain, by_hand = (layer(tmp_path / name) for name in ("scaled", "plain", "by hand"))
    assert torch.equal(scaled["weight"], by_hand["weight"])
    assert not torch.allclose(scaled["weight"], plain["weight"], rtol=1e-3)


@pytest.mark.parametrize("zero", [0, 2])
def test_a_converged_lens_is_that_of_its_step_and_the_others_go_on(
    fit: Fit, tmp_path: Path, zero: int
) -> None:
    fit("ten", steps=FROZEN_AFTER, zero=zero)
    fit("twenty", zero=zero)
    record = fit("frozen", converge=((0, 0),), zero=zero).record
    ten, twenty, frozen = (layer(tmp_path / name) for name in ("ten", "twenty", "frozen"))
    for name in ("weight", "bias"):
        assert torch.equal(frozen[name][0], ten[name][0]) and not torch.equal(
            frozen[name][0], twenty[name][0]
        )
        assert torch.equal(frozen[name][1], twenty[name][1])
    assert record.fit["converged"] == {"0.0": FROZEN_AFTER} and record.fit["steps"] == 20


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 3)])
@pytest.mark.parametrize("stop", [10, 13])
def test_what_had_converged_is_the_same_after_a_stop(
    fit: Fit, tmp_path: Path, before: int, after: int, stop: int
) -> None:
    undisturbed = fit("undisturbed", converge=((0, 0),), zero=before).record
    with pytest.raises(StoppedError):
        fit("stopped", converge=((0, 0),), stop=stop, zero=before)
    resumed = fit("stopped", converge=((0, 0),), zero=after).record
    resumed_maps, expected = (layer(tmp_path / name) for name in ("stopped", "undisturbed"))
    assert all(torch.equal(resumed_maps[name], expected[name]) for name in expected)
    assert resumed.fit == undisturbed.fit and resumed.held_out == undisturbed.held_out


def test_when_all_have_converged_the_fit_is_finished(fit: Fit, tmp_path: Path) -> None:
    summary = fit("lenses", converge=((0, 0), (0, 1)))
    assert summary.steps_taken == FROZEN_AFTER
    assert summary.record.fit["steps"] == FROZEN_AFTER and summary.record.fit["most_steps"] == 20
    lines = [json.loads(line) for line in (tmp_path / "lenses" / "log.jsonl").read_text().splitlines()]
    assert [line["converged"] for line in lines] == [[], ["0.0", "0.1"]]


def test_heads_are_called_by_their_numbers_wherever_they_are_named(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Head 1 alone: its loss is the first, and its name is 0.1."""
    with caplog.at_level("INFO", logger="alens"):
        record = fit("lenses", heads=(1,), converge=((0, 0),)).record
    assert list(record.fit["best_step"]) == ["0.1"]
    assert record.fit["converged"] == {}, "it is noise, and says nothing"
    lines = [json.loads(line) for line in (tmp_path / "lenses" / "log.jsonl").read_text().splitlines()]
    assert [line["converged"] for line in lines] == [[], ["0.1"]]
    said = [text for text in caplog.messages if "held-out loss" in text]
    assert all("held-out loss: 0.1 " in text for text in said) and len(said) == 2


def test_the_heads_of_a_summed_layer_converge_together(fit: Fit, tmp_path: Path) -> None:
    fit("ten", steps=FROZEN_AFTER, lens="summed")
    summary = fit("frozen", converge=((0, 0),), lens="summed")
    assert summary.steps_taken == FROZEN_AFTER
    assert summary.record.fit["converged"] == {"0.0": FROZEN_AFTER, "0.1": FROZEN_AFTER}
    frozen, expected = layer(tmp_path / "frozen"), layer(tmp_path / "ten")
    assert all(torch.equal(frozen[name], expected[name]) for name in expected)


def test_with_tolerance_0_nothing_converges(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, planted_store: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(trainer, "evaluation_steps", lambda *_: frozenset({2}))
    monkeypatch.setattr(curves, "ending", lambda *_: CONVERGED)
    for tolerance, steps in ((0.0, 4), (0.1, 2)):
        settings = FitSettings(
            steps=4, batch_rows=64, eval_rows=512, tolerance=tolerance, start="mean-output"
        )
        lenses = tmp_path / f"lenses-{tolerance}"
        request = FitRequest(store=planted_store, lenses=lenses, settings=settings, device="cpu")
        assert fit_lenses(request).steps_taken == steps


def test_kept_maps_that_end_in_the_unembedding_come_back_after_a_stop(
    fit: Fit, residual_cache: Path, tmp_path: Path
) -> None:
    """Tuned lenses of two layers; the first has converged when the fit is stopped."""
    given = {"lens": "tuned", "site": "resid_post", "store": residual_cache, "batch_rows": 64}
    fit("ten", steps=FROZEN_AFTER, layers=(1,), **given)

    converge = ((1, 0),)
    fit("undisturbed", converge=converge, **given)
    with pytest.raises(StoppedError):
        fit("stopped", converge=converge, stop=13, **given)
    fit("stopped", converge=converge, **given)
    for file in ("layer-01.safetensors", "layer-02.safetensors"):
        resumed, expected = (load_file(tmp_path / name / file) for name in ("stopped", "undisturbed"))
        assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    kept, ten = (load_file(tmp_path / name / "layer-01.safetensors") for name in ("stopped", "ten"))
    assert all(torch.equal(kept[name], ten[name]) for name in ten)
