"""The turns of a conversation on the page of a reading, in headless Chromium."""

from pathlib import Path

import pytest

import alens
from alens.pictures.reading_page import to_html

from .conftest import Browser

pytestmark = pytest.mark.slow


def test_each_turn_has_its_name_before_its_first_token(
    browser: Browser, demo_lenses: Path, tmp_path: Path
) -> None:
    numbers = alens.read(
        demo_lenses, ["He took her hand and", "He took"], heads="3.1", device="cpu"
    ).to_json()
    numbers["prompts"][0]["turns"] = [["user", 0], ["<b>bad</b>", 3]]
    (tmp_path / "page.html").write_text(to_html(numbers))
    browser.open(tmp_path / "page.html")
    browser.wait_until(lambda: browser.all(".tokens .piece"))
    shown = [element.text for element in browser.all("#tokens > *")]
    assert [shown[0], shown[4]] == ["user", "<b>bad</b>"] and len(shown) == 5 + 2
    assert len(browser.all("#tokens .turn")) == 2
