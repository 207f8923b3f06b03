"""Requests of import, export and publishing: light, because options are made from them, and of what the code takes."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from alens.errors import RequestError
from alens.exchange import safetensors_stream
from alens.exchange.request import BundleRequest, ExportDtype, UploadSettings


def test_they_load_nothing_heavy() -> None:
    code = "import sys, alens.exchange.request; print({'torch', 'numpy', 'click', 'huggingface_hub'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "set()"


def test_every_dtype_can_be_written() -> None:
    assert get_args(ExportDtype) == tuple(safetensors_stream.DTYPES)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"figures": "a.png"}, "figures is 'a.png': it must be a list of paths"),
        ({"figures": (Path("a.pt"),)}, "a.pt is not a figure: figures are .png"),
        ({"license_id": "MIT License"}, "'MIT License' is not a license as the hub names them"),
    ],
)
def test_a_bundle_that_cannot_be_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as refused:
        BundleRequest(lenses=Path("lenses"), repository="me/lenses", **given)
    assert str(refused.value).startswith(says)


def test_a_branch_that_cannot_be_is_refused() -> None:
    with pytest.raises(RequestError, match="'a b' is not the name of a branch; nothing was sent"):
        UploadSettings(revision="a b")
