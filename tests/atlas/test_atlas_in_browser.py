"""The atlas as people use it, in headless Chromium, opened from disk."""

import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from ..page_data import held
from ..pictures.conftest import Browser
from ..pictures.conftest import browser as browser  # a fixture
from .conftest import HEADS
from .pages_of_atlas import table

pytestmark = pytest.mark.slow

PAGES = ("index.html", "heads/3.4.html")


@pytest.fixture(autouse=True)
def quiet(browser: Browser, atlas: Path) -> Any:
    """Whatever a test does, the page complains of nothing and takes nothing but scripts of the atlas."""
    browser.complaints()
    yield
    assert browser.complaints() == []
    assert all(name.startswith((atlas / "tokens").as_uri()) for name in browser.fetched())


def answered(browser: Browser, title: str) -> list[list[str]]:
    """The cells of one list of the answer."""
    script = (
        "return [...document.querySelectorAll('#answer table')].filter((t) => t.caption.textContent.includes(arguments[0]))"
        ".flatMap((t) => [...t.tBodies[0].rows]).map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    cells: list[list[str]] = browser.run(script, title)
    return cells


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_and_can_be_read(browser: Browser, atlas: Path, page: str, width: int, scheme: str) -> None:
    browser.open(atlas / page, width=width, scheme=scheme)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.poor_contrast() == []


def test_the_grid_is_coloured_by_what_is_chosen(browser: Browser, atlas: Path) -> None:
    browser.open(atlas / "index.html")
    figures = held((atlas / "index.html").read_text())["figures"]
    colours = set()
    for figure in figures:
        Select(browser.one("#figure")).select_by_visible_text(figure["title"])
        browser.wait_until(lambda f=figure: browser.one("#meaning").text.startswith(f["meaning"]))
        shown = [element.text for element in browser.all(".cell .value")]
        assert len(shown) == len(HEADS)
        assert [float(text) for text in shown] == pytest.approx(figure["values"], abs=0.0051)
        colours.add(browser.all(".cell")[3].value_of_css_property("background-color"))
    assert len(colours) > 1
    address = browser.driver.current_url
    browser.open(atlas / "heads/3.4.html")
    browser.driver.get(address)
    browser.wait_until(lambda: browser.one("#figure").get_property("value") == figures[-1]["title"])


def test_a_search_finds_the_head_that_writes_a_token(browser: Browser, atlas: Path) -> None:
    """The token that head 3.4 raises most over the cache: the head is among those that raise it most."""
    word = table(atlas / PAGES[1], "Raised most")[0][0]
    browser.open(atlas / "index.html")
    browser.one("#asked").send_keys(word.replace("␣", " "))
    browser.wait_until(lambda: [b.text for b in browser.all("#matches button")][:1] == [word])
    browser.one("#asked").send_keys(Keys.ENTER)
    browser.wait_until(lambda: browser.all("#answered"))
    assert browser.one("#answered").text == f"Heads that write {word}"
    raised = answered(browser, "raise it most")
    assert "3.4" in [row[0] for row in raised]
    values = [float(row[1]) for row in raised]
    assert values == sorted(values, reverse=True) and values[-1] > 0
    assert all(row[2] for row in raised)
    assert "3.4" in [element.get_attribute("data-head") for element in browser.all(".cell.hit")]


def test_a_token_of_a_page_leads_to_the_heads_that_write_it(browser: Browser, atlas: Path) -> None:
    browser.open(atlas / PAGES[1])
    link = browser.all(".tokens .word")[0]
    word = link.text
    link.click()
    browser.wait_until(lambda: browser.all("#answered"))
    assert browser.one("#answered").text == f"Heads that write {word}"
    assert re.search(r"/index\.html#token=\d+$", browser.driver.current_url)
    name = answered(browser, "raise it most")[0][0]
    browser.all("#answer table a")[0].click()
    browser.wait_until(lambda: browser.one("h1").text == f"Head {name}")


def test_the_grid_and_its_search_need_no_mouse(browser: Browser, atlas: Path) -> None:
    browser.open(atlas / "index.html")
    reached = set()
    for _ in range(12):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        element = browser.driver.switch_to.active_element
        reached.add(element.get_attribute("id") or element.get_attribute("data-head"))
    assert {"figure", "asked", "0.1", "3.4"} <= reached
    browser.driver.switch_to.active_element.send_keys("")
    browser.run("document.querySelector('[data-head=\"3.4\"]').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait_until(lambda: browser.one("h1").text == "Head 3.4")
