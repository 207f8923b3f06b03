"""Errors of z and of head outputs, against numpy and against what theory allows."""

import numpy as np
import pytest

from alens.fidelity.forms import ZForm
from alens.fidelity.sample import RowSample
from alens.fidelity.z_error import MeanAndWorst, relative_errors, z_errors
from alens.store.cache_reader import Cache
from alens.store.encoding import quantise

FORMS = [ZForm("float16", bits) for bits in (7, 3)] + [ZForm("int8", None)]


def test_errors_against_numpy(demo: Cache) -> None:
    sample = RowSample(demo, 400, seed=0)
    errors = z_errors(sample, FORMS)
    assert errors is not None
    for form in FORMS:
        of_z, of_output, of_spread, names = [], [], [], []
        for layer in range(4):
            z = sample.z(layer).astype(float)
            error = form.decoded(sample.z(layer), layer).astype(float) - z
            for head in range(6):
                around = z[:, head] - z[:, head].mean(0)
                of_spread.append(np.sqrt((error[:, head] ** 2).sum() / (around**2).sum()))
                W_O = demo.weights("W_O")[layer, head].astype(float)
                of_z.append(np.sqrt((error[:, head] ** 2).sum() / (z[:, head] ** 2).sum()))
                outputs = ((error[:, head] @ W_O) ** 2).sum(), ((z[:, head] @ W_O) ** 2).sum()
                of_output.append(np.sqrt(outputs[0] / outputs[1]))
                names.append(f"{layer}.{head}")
        error_of = errors[form]
        for figure, values in (
            (error_of.z, of_z),
            (error_of.output, of_output),
            (error_of.spread, of_spread),
        ):
            assert figure.mean == pytest.approx(np.mean(values), rel=1e-6)
            assert figure.worst == pytest.approx(max(values), rel=1e-6)
            assert figure.worst_head == names[int(np.argmax(values))]


@pytest.mark.parametrize("bits", range(2, 10))
def test_rounding_is_off_by_half_a_step_of_each_value_at_most(demo: Cache, bits: int) -> None:
    z = demo.z(1, slice(0, 1024))
    error = np.abs(ZForm("float16", bits).decoded(z, 1).astype(float) - z)
    normal = np.abs(z) >= 2.0**-14  # below, float16 has fixed steps
    assert (error[normal] <= 2.0 ** -(bits + 1) * np.abs(z[normal].astype(float))).all()
    assert error.max() > 0


def test_int8_is_off_by_half_a_scale_at_most(demo: Cache) -> None:
    z = demo.z(1, slice(0, 1024))
    _, scale_NH = quantise(z)
    error = np.abs(ZForm("int8", None).decoded(z, 1).astype(float) - z)
    half = scale_NH.astype(float)[..., None] / 2
    assert (
        error <= half + np.abs(z).astype(float) * 2.0**-11 + 2.0**-25
    ).all()  # and float16 of what is read


def test_a_head_that_writes_nothing_has_no_error() -> None:
    nothing = np.zeros((3, 2, 4), np.float16)
    errors = relative_errors(nothing, nothing, np.ones((2, 4, 4)))
    assert [error_H.tolist() for error_H in errors] == [[0, 0]] * 3


def test_int8_loses_more_of_a_spread_that_is_small_beside_the_mean() -> None:
    """A constant dimension of 16 sets the scale of all others."""
    z_NHE = np.random.default_rng(0).normal(size=(256, 1, 4)).astype(np.float16)
    z_NHE[..., 0] = 16
    int8 = ZForm("int8", None).decoded(z_NHE, 0)
    of_z, _, of_spread = relative_errors(z_NHE, int8, np.ones((1, 4, 4)))
    assert of_z[0] < 0.005 < 0.02 < of_spread[0]


def test_it_can_be_stopped(demo: Cache) -> None:
    assert z_errors(RowSample(demo, 10, seed=0), FORMS, should_stop=lambda: True) is None


def test_a_spread_names_the_worst() -> None:
    assert MeanAndWorst.over([1.0, 3.0, 2.0], ["a", "b", "c"]) == MeanAndWorst(
        mean=2.0, worst=3.0, worst_head="b"
    )
