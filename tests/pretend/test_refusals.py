"""The pretended GPU refuses what CUDA refuses, waits where CUDA waits, and computes what the CPU computes."""

import pytest

from . import checks
from .conftest import Child

NAMES = [name for name in vars(checks) if name.startswith("check_")]


@pytest.fixture(scope="module")
def tracebacks(in_child: Child) -> dict[str, str | None]:
    """What each check raised."""
    (done,) = in_child({"gpus": 2, "checks": NAMES})
    return done


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.removeprefix("check_"))
def test_the_pretended_gpu_behaves_as_one(tracebacks: dict[str, str | None], name: str) -> None:
    assert tracebacks[name] is None, tracebacks[name]
