"""Settings of studies: a command's options are made from them, so they must be light and name what the code takes."""

import subprocess
import sys
from typing import get_args

import pytest

from alens.statistics import corrections, permutation
from alens.studies.location.settings import Alternative, Correction

STUDIES = ("basis", "comparison", "injection", "location", "transfer")


@pytest.mark.parametrize("study", STUDIES)
def test_settings_load_nothing_heavy(study: str) -> None:
    code = f"import sys, alens.studies.{study}.settings; print({{'torch', 'numpy', 'scipy', 'click'}} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "set()"


def test_locate_offers_every_test_there_is() -> None:
    assert get_args(Alternative) == permutation.ALTERNATIVES
    assert get_args(Correction) == corrections.CORRECTIONS
