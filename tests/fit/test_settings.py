"""What a fit can be asked for."""

import json

import pytest

from alens.errors import RequestError
from alens.fit.settings import FitSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher": "none"}, "teacher is 'none': it must be one of compressed, exact"),
        ({"batch_rows": 0}, "batch_rows is 0: it must be at least 1"),
        ({"eval_rows": 0}, "eval_rows is 0: it must be at least 1"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"rows": 0}, "rows is 0: it must be at least 1"),
        ({"top_k": 0}, "top_k is 0: it must be at least 1"),
        ({"tail_samples": 0}, "tail_samples is 0: it must be at least 1"),
        ({"tolerance": -0.1}, "tolerance is -0.1: it must be a number at least 0"),
        ({"tolerance": 1.0}, "tolerance is 1.0: it must be a number at least 0 and less than 1"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"epochs": float("nan")}, "epochs is nan"),
        ({"epochs": float("inf")}, "epochs is inf"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"min_position": -1}, "min_position is -1: it must be at least 0"),
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
