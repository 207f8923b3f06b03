"""What judging can be asked for, and what it refuses before any row is read."""

from typing import Any

import pytest

from alens.errors import RequestError
from alens.evaluation.settings import EvaluateSettings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rows": 0}, "rows is 0: it must be at least 1"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
        ({"resamples": 0}, "resamples is 0: it must be at least 1"),
        ({"layers": ("3",)}, "layers is ('3',): it must be a list of whole numbers such as [0, 3]"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as refused:
        EvaluateSettings(**given)
    assert str(refused.value) == says
