"""ROC curves as files."""

from pathlib import Path

import pytest

from alens.errors import RequestError
from alens.pictures import roc_curves as roc

CURVES = {"lenses": ([0.0, 0.0, 1.0], [0.0, 0.7, 1.0]), "length": ([0.0, 1.0], [0.0, 1.0])}


def test_a_curve_is_a_picture_and_says_what_it_was_given(tmp_path: Path) -> None:
    roc.write(tmp_path / "roc.png", "two curves", CURVES)
    content = (tmp_path / "roc.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000
    assert content == roc.to_png("two curves", CURVES)
    assert content != roc.to_png("two curves", {**CURVES, "length": ([0.0, 1.0], [0.5, 1.0])})


@pytest.mark.parametrize(("name", "message"), [("roc.pdf", "as .png"), ("none/roc.png", "does not exist")])
def test_a_path_that_cannot_be_written_is_told_before(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        roc.check_path(tmp_path / name)
