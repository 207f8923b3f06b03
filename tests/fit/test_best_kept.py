"""What a fit keeps: each lens at its best evaluation, and the mean output in place of a lens that says nothing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alens import load_lenses
from alens.errors import RunError, StoppedError
from alens.fit import trainer
from alens.fit.divergence_watch import FACTOR, NATS, WINDOW, DivergenceWatch
from alens.fit.judging import Judging
from alens.lens.record import LensRecord

AT = (5, 10, 15, 20)
RISING = {0: (0.5, 0.4, 0.6, 0.7), 1: (0.9, 0.8, 0.7, 0.6)}
"""Held-out losses of the two heads at AT: the first is best after 10 steps, the second after 20."""

Fit = Callable[..., LensRecord]


@pytest.fixture
def risen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out losses are as RISING says, and the mean output's is 1."""
    monkeypatch.setattr(trainer, "evaluation_steps", lambda *_: AT)
    left = {unit: list(losses) for unit, losses in RISING.items()}

    def losses(self: Judging, designs: Any, units: Mapping[int, list[int]], _: Any) -> dict[int, list[float]]:
        return {0: [left[unit].pop(0) for unit in units[0]]}

    monkeypatch.setattr(Judging, "losses", losses)
    monkeypatch.setattr(Judging, "mean_output_loss", lambda *_: 1.0)


def layer(lenses: Path) -> dict[str, torch.Tensor]:
    (file,) = lenses.glob("layer-*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("stop", [None, 7, 13, 18])
def test_the_best_evaluation_of_each_lens_is_the_one_that_is_kept(
    fit: Fit, tmp_path: Path, risen: None, monkeypatch: pytest.MonkeyPatch, stop: int | None
) -> None:
    """Also where the fit was stopped and resumed in between, and with --tolerance 0."""
    given = {"tolerance": 0.0, "lr": 0.1}
    if stop is not None:
        with pytest.raises(StoppedError):
            fit("lenses", stop=stop, **given)
    record = fit("lenses", **given)
    assert record.fit["best_step"] == {"0.0": 10, "0.1": 20} and record.fit["converged"] == {}
    lines = [json.loads(line) for line in (tmp_path / "lenses" / "log.jsonl").read_text().splitlines()]
    assert [line["best_step"]["0.0"] for line in lines] == [5, 10, 10, 10]
    assert {line["mean_output_loss"] for line in lines} == {1.0}
    monkeypatch.undo()
    for steps, head in ((10, 0), (20, 1)):
        fit(f"plain-{steps}", steps=steps, **given)
        kept, expected = layer(tmp_path / "lenses"), layer(tmp_path / f"plain-{steps}")
        if not load_lenses(tmp_path / f"plain-{steps}").record.says_nothing(0, head):
            for name in ("weight", "bias"):
                assert torch.equal(kept[name][head], expected[name][head])


def test_a_lens_of_noise_is_the_mean_output_and_says_so(fit: Fit, tmp_path: Path) -> None:
    """Head 1 of the planted store knows nothing; head 0 knows all."""
    record = fit("lenses", lr=0.1)
    assert not record.says_nothing(0, 0) and record.says_nothing(0, 1)
    assert record.held_out["0"][1]["kl"] == record.mean_output_kl > record.held_out["0"][0]["kl"]
    assert "0.1" not in record.fit["converged"]
    lenses = load_lenses(tmp_path / "lenses")
    assert not lenses.layer(0).weight_HEV[1].any() and lenses.layer(0).weight_HEV[0].any()
    assert torch.equal(lenses.layer(0).bias_HV[1], lenses.log_mean_output())


@pytest.mark.parametrize("heads", [(1,), (0, 1)])
def test_heads_that_share_a_loss_say_nothing_together(
    fit: Fit, tmp_path: Path, heads: tuple[int, ...]
) -> None:
    record = fit("lenses", lens="summed", heads=heads, lr=0.1)
    assert [record.says_nothing(0, head) for head in heads] == [heads == (1,)] * len(heads)
    if heads == (1,):
        lenses = load_lenses(tmp_path / "lenses")
        assert torch.equal(lenses.layer(0).bias_HV[0], lenses.log_mean_output())


def test_another_objective_is_judged_by_its_own_loss(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lens that ignores its input can have a lower reverse KL than the mean output."""
    assert not any(fit("lenses", objective="reverse-kl", lr=0.1).says_nothing(0, head) for head in (0, 1))
    monkeypatch.setattr(Judging, "mean_output_loss", lambda *_: 0.0)
    record = fit("nothing", objective="reverse-kl", lr=0.1)
    assert all(record.says_nothing(0, head) for head in (0, 1))
    assert record.held_out["0"][0]["kl"] == pytest.approx(record.mean_output_kl)


def test_a_rate_that_is_too_high_ends_the_fit_within_two_windows(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(
        RunError,
        match=r"at step 16 the loss of 0\.0, 0\.1 has diverged .*take a lower --lr than 300, such as 30",
    ):
        fit("lenses", lens="translator", lr=300.0, steps=200)
    assert not (tmp_path / "lenses" / "lens.json").exists()


def test_a_design_has_a_rate_of_its_own(fit: Fit, tmp_path: Path) -> None:
    record = fit("lenses", lens="translator", steps=1)
    begun = json.loads((tmp_path / "lenses" / "fit.json").read_text())["settings"]["lr"]
    assert record.fit["lr"] == begun == 0.001
    assert fit("linear", steps=1).fit["lr"] == 0.03
    assert fit("given", lens="translator", steps=1, lr=0.5).fit["lr"] == 0.5


def gone(divergence: DivergenceWatch, *losses: float) -> bool:
    """Whether a loss has diverged after windows with these losses; the mean output's is 1."""
    diverged = torch.zeros(1, 1, dtype=torch.bool)
    divergence.reference_LU = torch.ones(1, 1, dtype=torch.float64)
    for loss in losses:
        for _ in range(WINDOW):
            divergence.add(torch.tensor([[loss]]), lambda: torch.tensor(1.0), lambda values: values)
        diverged = divergence.over(lambda values: values)
    return bool(diverged)


FAR = FACTOR + NATS


def test_a_loss_has_diverged_when_it_is_far_above_the_mean_outputs_and_rising() -> None:
    assert gone(DivergenceWatch(1), 1.0, FAR + 0.1)
    assert gone(DivergenceWatch(1), float("nan")) and gone(DivergenceWatch(1), 1.0, float("inf"))
    assert not gone(DivergenceWatch(1), 1.0, FAR - 0.1)
    assert not gone(DivergenceWatch(1), FAR + 5.0)  # one odd window is not a divergence
    assert not gone(DivergenceWatch(1), FAR + 5.0, FAR + 4.0)  # it comes down
    assert gone(DivergenceWatch(1), 50.0, 40.0)  # and would take the whole fit


def test_a_lens_that_starts_above_the_mean_output_is_measured_by_its_start() -> None:
    """A Tuned Lens starts at the Logit Lens."""
    divergence = DivergenceWatch(1)
    divergence.add(torch.tensor([[12.0, 0.5]]), lambda: torch.tensor(3.0), lambda values: values)
    assert divergence.reference_LU is not None and divergence.reference_LU.tolist() == [[12.0, 3.0]]


def test_what_divergence_has_seen_is_the_same_after_a_checkpoint() -> None:
    first = DivergenceWatch(1)
    first.add(torch.tensor([[1.0]]), lambda: torch.tensor(1.0), lambda values: values)
    assert not gone(first, 1.0)
    for _ in range(3):
        first.add(torch.tensor([[9.0]]), lambda: torch.tensor(1.0), lambda values: values)
    second = DivergenceWatch(1)
    second.restore(first.state(lambda values: values), torch.device("cpu"))
    for divergence in (first, second):
        for _ in range(WINDOW - 3):
            divergence.add(torch.tensor([[3.3]]), lambda: torch.tensor(99.0), lambda values: values)
    assert [bool(d.over(lambda values: values)) for d in (first, second)] == [True, True]
