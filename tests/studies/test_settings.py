"""Settings of studies: a command's options are made from them, so they must be light and name what the code takes."""

import importlib
import subprocess
import sys
from dataclasses import is_dataclass
from typing import Any, get_args

import pytest

from alens.errors import RequestError
from alens.result import Result
from alens.statistics import corrections, permutation
from alens.studies.basis.settings import BasisSettings
from alens.studies.comparison.settings import CompareSettings
from alens.studies.injection.settings import InjectSettings
from alens.studies.location.settings import Alternative, Correction, LocateSettings

STUDIES = ("basis", "comparison", "families", "injection", "location", "transfer")


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_settings_and_a_result(study: str) -> None:
    for name in ("settings", "result"):
        module = importlib.import_module(f"alens.studies.{study}.{name}")
        own = [
            value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__
        ]
        if name == "settings":
            assert any(is_dataclass(value) and value.__name__.endswith("Settings") for value in own)
        else:
            assert any(isinstance(value, type) and issubclass(value, Result) for value in own)


@pytest.mark.parametrize("study", STUDIES)
def test_settings_load_nothing_heavy(study: str) -> None:
    code = f"import sys, alens.studies.{study}.settings; print({{'torch', 'numpy', 'scipy', 'click'}} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "set()"


def test_locate_offers_every_test_there_is() -> None:
    assert get_args(Alternative) == permutation.ALTERNATIVES
    assert get_args(Correction) == corrections.CORRECTIONS


@pytest.mark.parametrize("given", [{"position": "middle"}, {"top": 0}, {"resamples": 0}, {"seed": -1}])
def test_settings_of_a_comparison_are_checked(given: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        CompareSettings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"correction": "tukey"}, "correction is 'tukey': it must be one of max-t, holm"),
        ({"position": "first"}, "position is 'first': it must be one of last, all"),
        ({"alternative": "less"}, "alternative is 'less'"),
        ({"alpha": 0.0}, "alpha is 0.0: it must be a number above 0 and less than 1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"permutations": 0}, "permutations is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_of_locate_are_checked(given: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LocateSettings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ablation": "zero"}, "ablation is 'zero': it must be one of mean, resample"),
        ({"coordinates": "polar"}, "coordinates is 'polar': it must be one of whitened, raw"),
        ({"compare": ("pca",)}, "compare is 'pca': give unembedding or principal or random"),
        ({"compare": ("random", "random")}, "name each once"),
        ({"directions": 2}, "directions is 2: it must be at least 3"),
        (
            {"directions": 3, "top": 4},
            "directions is 3, and top 4 are to be ablated together: say --top 3 or fewer",
        ),
        ({"rows": 1}, "rows is 1: it must be at least 2"),
    ],
)
def test_settings_of_a_study_of_bases_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        BasisSettings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": ""}, "by is '': it must be one of lens, written, effect, unembedding, both, all"),
        ({"by": "model"}, "by is 'model'"),
        ({"scaling": "none"}, "scaling is 'none': it must be one of gradient, covariance"),
        ({"position": "first"}, "position is 'first'"),
        ({"strength": ()}, "strength is empty: give such as -2,0,2"),
        ({"strength": (float("nan"),)}, r"strength is \(nan,\): it must be a finite number"),
        ({"strength": (float("inf"),)}, r"strength is \(inf,\): it must be a finite number"),
        ({"random": -1}, "random is -1"),
    ],
)
def test_settings_of_an_injection_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        InjectSettings(layer=0, head=1, **given)
