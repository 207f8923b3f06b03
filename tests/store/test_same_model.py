import dataclasses
import math
from typing import Any

import pytest

from alens.store import same_model
from alens.store.model_record import ModelRecord
from alens.store.schema import Plan

CONFIG = {"model_type": "gpt2", "n_layer": 4, "sliding_window": None, "rope": {"theta": 1e4}}
FOUR = 'act is 1, not the default, model_type is the default, not "gpt2", n_layer is the default, not 4, ...'
PROBE: dict[str, Any] = {"dtype": "float32", "tokens": [1, 2, 3], "logits": [1.0, -8.0, 0.5]}


@pytest.fixture
def model(tiny_plan: Plan) -> ModelRecord:
    return dataclasses.replace(tiny_plan.model, config=CONFIG, probe=PROBE)


def test_the_same_model_elsewhere_is_the_same(model: ModelRecord) -> None:
    moved = dataclasses.replace(model, id="/elsewhere", revision="a" * 40)
    assert same_model.difference(model, moved) is None
    assert same_model.unchecked(model, moved) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights_sha256": "0" * 64}, "other weights"),
        ({"config": {**CONFIG, "n_layer": 3}}, "another configuration (n_layer is 3, not 4)"),
        ({"config": {**CONFIG, "act": "relu"}}, 'another configuration (act is "relu", not the default)'),
        ({"config": {"model_type": "gpt2", "n_layer": 4, "rope": {"theta": 1e4}}}, "another configuration (sliding_window is the default, not null)"),
        ({"config": {**CONFIG, "rope": {"theta": 1e5}}}, 'another configuration (rope is {"theta": 100000.0}, not {"theta": 10000.0})'),
        ({"config": {"act": 1}}, f"another configuration ({FOUR})"),
    ],
)  # fmt: skip
def test_what_differs_is_said(model: ModelRecord, changes: dict[str, Any], says: str) -> None:
    assert same_model.difference(model, dataclasses.replace(model, **changes)) == says


@pytest.mark.parametrize(
    ("dtype", "apart", "same"),
    [
        ("float32", 1e-5, True),
        ("float32", 0.01, False),
        ("bfloat16", 0.05, True),
        ("bfloat16", 2.0, False),
        ("float16", 0.02, True),
        ("float16", 0.5, False),
    ],
)
def test_logits_may_differ_as_rounding_does(model: ModelRecord, dtype: str, apart: float, same: bool) -> None:
    """Lenses are read in float32 whatever their cache was made in: the coarser of two dtypes counts."""
    other = {**PROBE, "dtype": dtype, "logits": [1.0, -8.0 + apart, 0.5]}
    for known, later in ((PROBE, other), (other, PROBE)):
        phrase = same_model.difference(
            dataclasses.replace(model, probe=known), dataclasses.replace(model, probe=later)
        )
        assert (phrase is None) == same
        assert same or f"other logits for the same tokens ({apart:.3g} apart" in str(phrase)


def test_what_one_of_them_does_not_record_is_not_compared_but_said(model: ModelRecord) -> None:
    old = dataclasses.replace(model, config=None, probe=None)
    for known, other in ((old, model), (model, old)):
        assert same_model.difference(known, other) is None
        assert "its configuration was not recorded then" in str(same_model.unchecked(known, other))
    later = dataclasses.replace(model, probe={**PROBE, "tokens": [4, 5, 6], "logits": [9.0, 9.0, 9.0]})
    assert same_model.difference(model, later) is None


def test_the_configuration_is_part_of_the_identity_and_the_probe_is_not(
    tiny_plan: Plan, model: ModelRecord
) -> None:
    plan = tiny_plan
    whole = dataclasses.replace(plan, model=model)
    assert plan.model.config is None and whole.identity != plan.identity
    for probe in (None, {**PROBE, "logits": [1.0, -7.0, 0.5]}):
        assert (
            dataclasses.replace(plan, model=dataclasses.replace(model, probe=probe)).identity
            == whole.identity
        )
    without_null = {name: value for name, value in CONFIG.items() if value is not None}
    other = dataclasses.replace(plan, model=dataclasses.replace(model, config=without_null))
    assert other.identity != whole.identity
    assert Plan.from_json(whole.to_json(), "plan.json") == whole


@pytest.mark.parametrize(
    "probe",
    [
        {},
        {**PROBE, "dtype": "int8"},
        {**PROBE, "logits": [1.0]},
        {**PROBE, "logits": [1.0, math.nan, 2.0]},
        {**PROBE, "logits": ["1", "2", "3"]},
        {**PROBE, "tokens": [], "logits": []},
        "probe",
    ],
)
def test_a_probe_that_cannot_be_one_is_refused(model: ModelRecord, probe: Any) -> None:
    with pytest.raises(TypeError, match="probe is not tokens, logits and a dtype"):
        dataclasses.replace(model, probe=probe)
