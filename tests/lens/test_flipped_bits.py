"""A flipped bit of `lens.json` or `fit.json` is never read as other content; files from before they had a hash are still read."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens.errors import DamageError, RequestError
from alens.fit import fit_plan
from alens.lens.directory import LensDirectory
from alens.lens.recorded_lenses import RecordedLenses

from .. import documents
from ..damage import flipped

Copy = Callable[[Path], Path]
SAMPLE = 400
READ: dict[str, Callable[[Path], Any]] = {
    "lens.json": lambda root: RecordedLenses(root).record,
    "fit.json": lambda root: fit_plan.begun(LensDirectory(root)),
}


def accepted(root: Path, name: str, bits: np.ndarray) -> list[int]:
    """The bits of a file whose flip changes its content without an error."""
    path, right = root / name, READ[name](root)
    blob, passed = path.read_bytes(), []
    for bit in bits.tolist():
        path.write_bytes(flipped(blob, bit // 8, 1 << bit % 8))
        try:
            if READ[name](root) != right:
                passed.append(bit)
        except (DamageError, RequestError):
            pass
    path.write_bytes(blob)
    return passed


@pytest.mark.parametrize("name", READ)
def test_a_flipped_bit_is_noticed(demo_lenses: Path, copy_of: Copy, name: str) -> None:
    root = copy_of(demo_lenses)
    num_bits = 8 * (root / name).stat().st_size
    assert accepted(root, name, np.random.default_rng(0).choice(num_bits, SAMPLE, replace=False)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_every_flipped_bit_is_noticed(demo_lenses: Path, copy_of: Copy, name: str) -> None:
    root = copy_of(demo_lenses)
    assert accepted(root, name, np.arange(8 * (root / name).stat().st_size)) == []


def test_lenses_of_before_the_hash_are_read_with_one_warning(
    demo_lenses: Path, copy_of: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    root, right = copy_of(demo_lenses), RecordedLenses(demo_lenses).record
    documents.without_hash(root / "lens.json", format=2)
    with caplog.at_level(logging.WARNING, "alens"):
        assert RecordedLenses(root).record == RecordedLenses(root).record == right
    (line,) = caplog.messages
    assert line.startswith(
        f"{root / 'lens.json'} was written by an alens that put no hash into it: whether heads"
    )


def test_a_fit_of_before_the_hash_can_go_on(
    demo_lenses: Path, copy_of: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    root, right = copy_of(demo_lenses), fit_plan.begun(LensDirectory(demo_lenses))
    documents.without_hash(root / "fit.json", format=None)
    with caplog.at_level(logging.WARNING, "alens"):
        assert fit_plan.begun(LensDirectory(root)) == right
    (line,) = caplog.messages
    assert "whether settings and shards are as they were written cannot be checked" in line


@pytest.mark.parametrize("name", READ)
def test_a_file_that_lost_its_hash_is_not_taken_for_an_old_one(
    demo_lenses: Path, copy_of: Copy, name: str
) -> None:
    root = copy_of(demo_lenses)
    documents.without_hash(root / name)
    with pytest.raises(DamageError, match=rf"{name} is not whole \(it lacks its hash\)"):
        READ[name](root)
