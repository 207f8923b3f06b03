"""Designs at the closed form: what each can hold of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from alens.lens.closed_form import ClosedForm, normal_bias
from alens.lens.designs.linear import Linear
from alens.lens.designs.low_rank import LowRank
from alens.lens.designs.regression import Regression
from alens.lens.designs.translator import Translator

from .conftest import D, E, H


@pytest.fixture
def closed(values: torch.Tensor) -> ClosedForm:
    random = np.random.default_rng(0)
    z_NHE = values.double().numpy()
    return ClosedForm(
        T_HED=random.normal(size=(H, E, D)),
        mean_HE=z_NHE.mean(0),
        covariance_HEE=np.stack([np.cov(z_NHE[:, head].T, bias=True) for head in range(H)]),
        mean_final_D=np.zeros(D),
        r2_H=np.ones(H),
        num_rows=len(z_NHE),
    )


def centred(logits_NV: torch.Tensor) -> torch.Tensor:
    return logits_NV - logits_NV.mean(-1, keepdim=True)


def test_linear_says_the_unembedded_prediction(ground: Any, values: torch.Tensor, closed: ClosedForm) -> None:
    start = ground(values)
    design = Linear(start)
    design.start_at(closed)
    maps = design.maps()
    for head in range(H):
        z_NE = values[:, head].double() - torch.from_numpy(closed.mean_HE[head])
        moved_NV = z_NE @ torch.from_numpy(closed.T_HED[head]) @ start.W_U_DV.double()
        said_NV = maps.logits(head, values[:, head]) - design.bias[head]
        torch.testing.assert_close(centred(said_NV).double(), centred(moved_NV), rtol=1e-3, atol=1e-3)


def test_the_bias_gives_normal_z_the_mean_output(
    ground: Any, values: torch.Tensor, closed: ClosedForm
) -> None:
    start = ground(values)
    weight_HEV = 0.3 * closed.affine(start.W_U_DV, start.log_mean_output_V, start.whitening)[0]
    white_NE = torch.randn(20_000, E, generator=torch.Generator().manual_seed(0))
    for weight_EV, bias_V in zip(weight_HEV, normal_bias(weight_HEV, start.log_mean_output_V), strict=True):
        off, plain = (
            float((torch.addmm(b, white_NE, weight_EV).softmax(-1).mean(0) - start.log_mean_output_V.exp()).abs().sum())
            for b in (bias_V, start.log_mean_output_V)
        )  # fmt: skip
        assert off < 0.5 * plain


def test_translator_has_the_same_weight_and_the_nearest_bias(
    ground: Any, values: torch.Tensor, closed: ClosedForm
) -> None:
    start = ground(values)
    linear, design = Linear(start), Translator(start)
    for each in (linear, design):
        each.start_at(closed)
    folded, expected = design.maps().folded(), linear.maps()
    torch.testing.assert_close(centred(folded.weight_HEV), centred(expected.weight_HEV), rtol=1e-3, atol=1e-3)
    probs_V = start.log_mean_output_V.exp()

    def far() -> float:
        off_HV = (design.affine()[1] - linear.bias).detach()
        return float(((off_HV - (off_HV @ probs_V)[:, None]).square() * probs_V).sum())

    nearest = far()
    for change in (-design.shift.detach(), torch.full((H, D), 0.01), torch.full((H, D), -0.01)):
        with torch.no_grad():
            design.shift += change
        assert far() > nearest
        with torch.no_grad():
            design.shift -= change


def test_regression_says_what_a_translator_starts_with(
    ground: Any, values: torch.Tensor, closed: ClosedForm
) -> None:
    start = ground(values)
    whole, begun = Regression(start), Translator(start)
    for design in (whole, begun):
        design.start_at(closed)
    assert whole.maps().shift_HD.abs().min() > 0
    for head in range(H):
        said_NV, expected_NV = (
            design.maps().logits(head, values[:, head]).log_softmax(-1) for design in (whole, begun)
        )
        torch.testing.assert_close(said_NV, expected_NV, rtol=1e-3, atol=1e-3)
    nothing = whole.nothing().logits(0, values[:, 0]).log_softmax(-1)
    torch.testing.assert_close(nothing, start.log_mean_output_V.expand_as(nothing))


def test_low_rank_is_the_nearest_of_its_rank(ground: Any, values: torch.Tensor, closed: ClosedForm) -> None:
    """Nearest over white z and the mean output: no other product of its rank is nearer there."""
    start = ground(values)
    whole, probs_V = Linear(start), start.log_mean_output_V.exp()
    whole.start_at(closed)

    def far(weight_EV: torch.Tensor, head: int) -> float:
        off_EV = (weight_EV - whole.weight[head]).detach()
        return float(((off_EV - (off_EV @ probs_V)[:, None]).square() * probs_V).sum())

    full = LowRank(start, rank=E)
    full.start_at(closed)
    cut = LowRank(start, rank=2)
    cut.start_at(closed)
    for head in range(H):
        assert far(full.affine()[0][head], head) < 1e-6
        left_VE = (whole.weight[head] * probs_V.sqrt()).detach().T
        singular = torch.linalg.svdvals(left_VE)[2:].square().sum()
        assert far(cut.affine()[0][head], head) == pytest.approx(float(singular), rel=1e-3)
    assert torch.equal(cut.bias, normal_bias(cut.affine()[0].detach(), start.log_mean_output_V))


def test_a_head_that_knows_more_moves_faster_from_the_same_start(
    ground: Any, values: torch.Tensor, closed: ClosedForm
) -> None:
    """The first head explains four times as much as the others: the same step moves its logits twice as far."""
    even = ground(values)
    paced = even.paced(dataclasses.replace(closed, r2_H=np.where(np.arange(H) == 0, 0.4, 0.1)))
    starts, moves = {}, {}
    for name, at in (("even", even), ("paced", paced)):
        lens = Linear(at)
        lens.start_at(closed)
        starts[name] = [part.detach().clone() for part in lens.affine()]
        with torch.no_grad():
            lens.weight.add_(0.01)
        moves[name] = (lens.affine()[0] - starts[name][0]).abs().sum((1, 2))
    for one, other in zip(starts["even"], starts["paced"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    faster_H = moves["paced"] / moves["even"]
    torch.testing.assert_close(
        faster_H / faster_H[1], torch.where(torch.arange(H) == 0, 2.0, 1.0), rtol=1e-3, atol=0
    )
