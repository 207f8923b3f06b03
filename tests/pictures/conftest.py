"""A headless Chromium for the tests of pages, and what must be true of every page in it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from .. import ports

LIMIT_S = 400
"""In seconds: only a page that hangs takes longer, on the busiest machine."""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",  # a container's /dev/shm may be too small for a page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]

CONTRAST = """
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
const light = (rgb) => { const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
const ground = (element) => { for (let e = element; e; e = e.parentElement) {
  const colour = parse(getComputedStyle(e).backgroundColor); if (colour[3] > 0) return colour; } return [255, 255, 255, 1]; };
return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !["SCRIPT", "STYLE"].includes(e.tagName)
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
  const text = parse(getComputedStyle(e).color).slice(0, 3);
  const beside = [...e.parentElement.children].filter((s) => s !== e && s.className === "bar");
  const grounds = [ground(e), ...beside.map(ground)];
  return [Math.min(...grounds.map((g) => ratio(text, g.slice(0, 3)))), e.tagName + "." + e.className + " " + e.textContent.slice(0, 30)];
});
"""
"""For every element that holds text: its contrast to its background, by WCAG 2, and what it is."""


class Browser:
    """Chromium, and what is asked of every page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1366, height: int = 900, scheme: str = "light") -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.absolute().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        elements: list[Any] = self.driver.find_elements("css selector", selector)
        return elements

    def one(self, selector: str) -> Any:
        (element,) = self.all(selector)
        return element

    def wait_until(self, true: Callable[[], object]) -> None:
        """Wait for something that the page does by itself, such as at its next frame."""
        WebDriverWait(self.driver, LIMIT_S).until(lambda _: true())

    def complaints(self) -> list[Any]:
        """The messages of the console, with warnings."""
        entries: list[Any] = self.driver.get_log("browser")
        return entries

    def fetched(self) -> list[str]:
        """What the page asked the network or the disk for, apart from itself."""
        names: list[str] = self.run(
            "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        )
        return names

    def poor_contrast(self) -> list[Any]:
        """Texts that WCAG 2 (AA) calls hard to read."""
        entries: list[Any] = self.run(CONTRAST)
        assert len(entries) > 10
        return [entry for entry in entries if entry[0] < 4.5]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium; nothing is downloaded."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Selenium would take a port that is free at the moment, and bind it later.
    with ports.leased() as leased:
        driver = webdriver.Chrome(options=options, service=Service(chromedriver, port=leased[0]))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
