"""Bytes a row, counted in files."""

from pathlib import Path

import pytest

from alens.fidelity.forms import ZForm
from alens.fidelity.z_bytes import stored_z_bytes, written_z_bytes
from alens.store.cache_reader import Cache

Z_BYTES = 4 * 6 * 32
"""Numbers of z a row: layers, heads, d_head of the demo."""


def test_the_stored_form_is_counted_in_its_files(demo: Cache, as_int8: Cache) -> None:
    files = list(demo.paths.arrays.glob("sites/attn.z/*/c.*"))
    assert len(files) == 24
    assert stored_z_bytes(demo) == sum(file.stat().st_size for file in files) / 6144
    assert 2 * Z_BYTES < stored_z_bytes(demo) < 2.01 * Z_BYTES
    int8_bytes = Z_BYTES / 2 + 2 * 6 * 2  # two layers of the four, and their scales
    assert int8_bytes < stored_z_bytes(as_int8) < 1.02 * int8_bytes


def test_other_forms_are_written_and_counted_for_all_layers(demo: Cache, tmp_path: Path) -> None:
    bytes_of = {
        form: written_z_bytes(demo, form, (0, 3), tmp_path)
        for form in (ZForm("int8", None), ZForm("float16", 3))
    }
    assert bytes_of[ZForm("int8", None)] == pytest.approx(Z_BYTES + 4 * 6 * 2, rel=0.02)
    rounded = bytes_of[ZForm("float16", 3)]
    assert rounded is not None and 0.8 * Z_BYTES < rounded < 1.2 * Z_BYTES
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_stopped(demo: Cache, tmp_path: Path) -> None:
    assert written_z_bytes(demo, ZForm("int8", None), (0,), tmp_path, lambda: True) is None
    assert list(tmp_path.iterdir()) == []
