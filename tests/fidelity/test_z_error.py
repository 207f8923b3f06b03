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
        of_z, of_output, names = [], [], []
        for layer in range(4):
            z = sample.z(layer).astype(float)
            error = form.decoded(sample.z(layer), layer).astype(float) - z
            for head in range(6):
                W_O = demo.weights("W_O")[layer, head].astype(float)
                of_z.append(np.sqrt((error[:, head] ** 2).sum() / (z[:, head] ** 2).sum()))
                outputs = ((error[:, head] @ W_O) ** 2).sum(), ((z[:, head] @ W_O) ** 2).sum()
                of_output.append(np.sqrt(outputs[0] / outputs[1]))
                names.append(f"{layer}.{head}")
        for spread, values in ((errors[form].z, of_z), (errors[form].output, of_output)):
            assert spread.mean == pytest.approx(np.mean(values), rel=1e-6)
            assert spread.worst == pytest.approx(max(values), rel=1e-6)
            assert spread.worst_head == names[int(np.argmax(values))]


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
    of_z, of_output = relative_errors(nothing, nothing, np.ones((2, 4, 4)))
    assert of_z.tolist() == of_output.tolist() == [0, 0]


def test_it_can_be_stopped(demo: Cache) -> None:
    assert z_errors(RowSample(demo, 10, seed=0), FORMS, should_stop=lambda: True) is None


def test_a_spread_names_the_worst() -> None:
    assert MeanAndWorst.over([1.0, 3.0, 2.0], ["a", "b", "c"]) == MeanAndWorst(
        mean=2.0, worst=3.0, worst_head="b"
    )
