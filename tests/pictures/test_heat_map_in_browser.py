"""The page of a heat map in headless Chromium: readable on a laptop and a phone, in light and dark, and it loads nothing."""

from pathlib import Path

import numpy as np
import pytest

from alens.pictures import heat_map
from alens.pictures.head_grid import HeadGrid

from .conftest import Browser

pytestmark = pytest.mark.slow

ROWS, COLUMNS = 12, 32


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many heads as a large model has, from one end of the colours to the other."""
    path = tmp_path_factory.mktemp("pages") / "map.html"
    places = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
    values = dict(zip(places, np.linspace(-1.0, 1.0, len(places)).tolist(), strict=True))
    drawn = HeadGrid(
        title="KL of <heads>",
        values=values,
        number_title="KL, nats",
        centre=0.0,
        marked={place for place, value in values.items() if value > 0.9},
        mark_title="p < 0.05",
    )
    heat_map.write(path, drawn)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_every_number_can_be_read(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width=width, scheme=scheme)
    assert len(browser.all("td")) == ROWS * COLUMNS
    assert browser.poor_contrast() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(
        "const box = document.querySelector('.scroll'); return box.scrollWidth > box.clientWidth"
    )
    assert browser.complaints() == [] and browser.fetched() == []
