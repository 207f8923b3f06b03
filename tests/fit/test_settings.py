"""What a fit can be asked for."""

import json

import pytest

from alens.errors import RequestError
from alens.fit.settings import FitSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lens": "cubic"}, "lens is 'cubic': it must be one of linear"),
        ({"objective": "l2"}, "objective is 'l2': it must be one of forward-kl"),
        ({"teacher": "none"}, "teacher is 'none': it must be one of compressed, exact"),
        ({"batch_rows": 0}, "batch_rows is 0: it must be at least 1"),
        ({"eval_rows": 0}, "eval_rows is 0: it must be at least 1"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"epochs": float("nan")}, "epochs is nan"),
        ({"epochs": float("inf")}, "epochs is inf"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"min_position": -1}, "min_position is -1: it must be 0 or more"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_it_may_be(given: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        FitSettings(**given)


def test_settings_are_plain_json() -> None:
    settings = FitSettings(layers=(0, 3))
    assert json.loads(json.dumps(settings.to_json())) == settings.to_json()
    assert settings.to_json()["layers"] == [0, 3]
