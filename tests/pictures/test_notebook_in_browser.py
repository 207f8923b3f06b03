"""The outputs of the notebook in headless Chromium: pages in frames that do not clash, and short tables beside them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

from .conftest import Browser

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "reading.ipynb"
SHOWN = "The outputs of a notebook"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All HTML that the cells show, one below the other in one document, as a notebook has it."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    parts = [output.get("data", {}).get("text/html", "") for cell in cells for output in cell.outputs]
    file = tmp_path_factory.mktemp("notebook") / "outputs.html"
    file.write_text("\n".join(("<!doctype html><meta charset='utf-8'>", f"<title>{SHOWN}</title>", *parts)))
    return file


@contextmanager
def inside(browser: Browser, frame: Any) -> Iterator[None]:
    """Within the block the browser looks at the document of a frame."""
    browser.driver.switch_to.frame(frame)
    try:
        yield
    finally:
        browser.driver.switch_to.default_content()


def test_two_readings_in_one_notebook_do_not_clash(browser: Browser, outputs: Path) -> None:
    browser.complaints()
    browser.open(outputs, width=1100)
    frames = browser.all("iframe")
    assert len(frames) == 2
    for frame in frames:
        with inside(browser, frame):
            browser.wait_until(lambda: browser.all("[data-cell]"))
            assert (
                browser.run("return window.origin") == "null"
            )  # it sees neither the notebook nor the other frame
            assert browser.all("[data-list=lens] td")
    heads = []
    for number, frame in enumerate(frames):
        with inside(browser, frame):
            browser.all("[data-cell]")[number].click()
            heads.append(browser.one("#head").text)
    with inside(browser, frames[0]):
        assert browser.one("#head").text == heads[0] == "Layer 3, head 0"
    assert heads[1] == "Layer 3, head 1"
    assert browser.driver.title == SHOWN
    assert browser.complaints() == []


def test_results_are_short_tables(browser: Browser, outputs: Path) -> None:
    browser.open(outputs, width=1100)
    texts = [paragraph.text for paragraph in browser.all("body > div > p")]
    for name in ("Evaluation: 6 lenses of 1 layer", "Reading: 'He took her hand and'", "Ablations: "):
        assert any(text.startswith(name) for text in texts)
    assert all(
        len(rows) <= 11
        for rows in ([*table.find_elements("css selector", "tr")] for table in browser.all("table"))
    )
    assert browser.run("return document.documentElement.scrollWidth") <= 1100
