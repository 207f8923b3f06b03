"""The page of `alens read --html` for a model of 30 layers x 12 heads: layout, colours, views, and the link to a view."""

import re
from pathlib import Path
from typing import Any

import pytest

from alens.pictures import reading_page

from ..page_data import enlarged, held
from .conftest import Browser

pytestmark = pytest.mark.slow

PROMPTS = ("He took her hand and", "She went to the")
LAYERS, HEADS = 30, 12
SIZES = [(1400, 900), (400, 800)]

TIMES = "\u00d7"

IN_SIGHT = """
const part = document.querySelector(arguments[0]).getBoundingClientRect();
return part.top >= 0 && part.bottom <= innerHeight && part.left >= 0 && part.right <= innerWidth;
"""


@pytest.fixture(scope="module")
def numbers(demo_lenses: Path, demo_effect_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from alens import cli

    file = tmp_path_factory.mktemp("page") / "reading.html"
    given = ("read", demo_lenses, *PROMPTS, "--token", "door", "--top", 3, "--html", file)
    given += ("--effect", demo_effect_lenses)
    assert cli.run([str(word) for word in given]) == 0
    return enlarged(held(file.read_text()), layers=LAYERS, heads=HEADS)


@pytest.fixture(scope="module")
def page(numbers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("large") / "large.html"
    file.write_text(reading_page.to_html(numbers))
    return file


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Any:
    """Whatever a test does, the page complains of nothing and fetches nothing."""
    browser.complaints()
    yield
    assert browser.complaints() == []
    assert browser.fetched() == []


def choose(browser: Browser, name: str, value: str) -> None:
    browser.one(f"input[name={name}][value={value}]").click()


def in_sight(browser: Browser, selector: str) -> bool:
    return bool(browser.run(IN_SIGHT, selector))


def fits(browser: Browser) -> bool:
    """Whether the page does not scroll sideways."""
    return bool(browser.run("return document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_click_on_the_last_layer_shows_its_lists(
    browser: Browser, page: Path, width: int, height: int
) -> None:
    browser.open(page, width=width, height=height)
    for cell in (LAYERS * HEADS - 1, 0, (LAYERS - 1) * HEADS):
        button = browser.one(f"[data-cell='{cell}']")
        browser.run("arguments[0].scrollIntoView({ block: 'nearest', inline: 'nearest' })", button)
        button.click()
        assert browser.one("#head").text == f"Layer {cell // HEADS}, head {cell % HEADS}"
        for part in ("#head", f"[data-cell='{cell}']", "[data-list=lens] tbody tr"):
            browser.wait_until(lambda part=part: in_sight(browser, part))
        assert fits(browser)


def test_the_chosen_head_stays_in_sight_when_the_window_shrinks(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.one(f"[data-cell='{LAYERS * HEADS - 1}']").click()
    size = {"width": 1400, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    box = (
        "return document.querySelector('.cell[aria-pressed=true]').getBoundingClientRect().bottom "
        "<= document.getElementById('scroll').getBoundingClientRect().bottom"
    )
    browser.wait_until(lambda: browser.run("return innerHeight") == 640 and browser.run(box))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_heads_stay_above_their_columns(browser: Browser, page: Path, width: int, height: int) -> None:
    browser.open(page, width=width, height=height)
    browser.run("document.getElementById('scroll').scrollTop = 600")
    tops = browser.run(
        "return ['#scroll', '#grid thead'].map((name) => document.querySelector(name).getBoundingClientRect().top)"
    )
    assert tops[0] == pytest.approx(tops[1], abs=1)
    if width >= 1400:  # all of the grid's width and all of the page
        assert browser.run(
            "const box = document.getElementById('scroll'); return box.scrollWidth <= box.clientWidth"
        )
        assert browser.run("return document.documentElement.scrollHeight <= innerHeight")


def test_an_odd_head_is_marked_and_leaves_the_others_their_colours(
    browser: Browser, numbers: Any, page: Path, tmp_path: Path
) -> None:
    browser.open(page)
    colours = "return [...document.querySelectorAll('.cell')].map((cell) => cell.style.backgroundColor)"
    before, kl = browser.run(colours), numbers["prompts"][0]["places"][-1]["lens"]["kl"]
    kept, kl[7] = kl[7], 24870
    try:
        (tmp_path / "odd.html").write_text(reading_page.to_html(numbers))
    finally:
        kl[7] = kept
    browser.open(tmp_path / "odd.html")
    after = browser.run(colours)
    assert browser.one("[data-cell='7']").get_attribute("class") == "cell beyond"
    assert "beyond the scale" in browser.one("[data-cell='7']").get_attribute("aria-label")
    assert "A cell with a marked corner lies beyond the scale" in browser.one("#meaning").text
    assert len(set(after) - {after[7]}) == len(set(before)) == 4
    assert browser.one("#high").text.startswith("≥ ")
    assert browser.poor_contrast() == []


def test_large_numbers_are_short(browser: Browser, numbers: Any, tmp_path: Path) -> None:
    place = numbers["prompts"][0]["places"][-1]
    kept, mean = place["lens"]["kept"][0][:4], numbers["tokens"][0][1]
    place["lens"]["kept"][0][:4] = [mean + 15933, mean + 9332, mean - 16000, mean + 500]
    try:
        (tmp_path / "lift.html").write_text(reading_page.to_html(numbers))
    finally:
        place["lens"]["kept"][0][:4] = kept
    browser.open(tmp_path / "lift.html", width=400, height=800)
    choose(browser, "figure", "lift")
    assert [cell.text for cell in browser.all(".cell")[:4]] == [
        "8.31M\u00d7",
        "11.3k\u00d7",
        "<0.001\u00d7",
        "1.6\u00d7",
    ]
    assert browser.run(
        "return [...document.querySelectorAll('.cell .number')].every((text) => text.scrollWidth <= text.clientWidth)"
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("view", ["heads", "token", "layers", "pair"])
def test_each_view_can_be_read_at_each_size(
    browser: Browser, page: Path, view: str, width: int, height: int
) -> None:
    for scheme in ("light", "dark"):
        browser.open(page, width=width, height=height, scheme=scheme)
        choose(browser, "view", view)
        assert fits(browser) and browser.poor_contrast() == []
        if width >= 1400:
            assert browser.run(
                "const box = document.getElementById('scroll'); return box.scrollWidth <= box.clientWidth"
            )
        sizes = browser.run("return [...document.querySelectorAll('.cell')].map((cell) => cell.offsetWidth)")
        assert min(sizes) >= (10 if width >= 1400 else 24)
        assert all(
            browser.run(
                "return [...document.querySelectorAll('.cell')].map((cell) => cell.getAttribute('aria-label'))"
            )
        )


def test_one_token_over_all_heads_and_positions(browser: Browser, numbers: Any, page: Path) -> None:
    browser.open(page)
    choose(browser, "view", "token")
    places, mean = numbers["prompts"][0]["places"], numbers["tokens"][0][1]
    assert len(browser.all(".cell")) == LAYERS * HEADS * len(places)
    assert browser.one("input[name=figure]:checked").get_attribute("value") == "lift"
    for cell, place in ((0, 0), (LAYERS * HEADS - 1, 4)):
        lift = 2.718281828 ** ((places[place]["lens"]["kept"][0][cell] - mean) / 1000)
        label = browser.one(f"[data-cell='{cell}'][data-at='{place}']").get_attribute("aria-label")
        shown = re.fullmatch(
            rf"[\d.]+, position \d+ \S+: lift of a token ([\d.]+){TIMES}(, beyond the scale)?", label
        )
        assert shown is not None and float(shown[1]) == pytest.approx(lift, rel=0.1, abs=0.051)
    browser.one("[data-cell='13'][data-at='2']").click()
    assert browser.one("#head").text == "Layer 1, head 1"
    assert browser.one("#tokens [aria-pressed=true]").get_attribute("data-place") == "2"
    choose(browser, "order", "strength")
    first = browser.all("#grid tbody th")[0].text
    strength = {
        f"{layer}.{head}": max(abs(place["lens"]["kept"][0][HEADS * layer + head] - mean) for place in places)
        for layer in range(LAYERS)
        for head in range(HEADS)
    }
    assert strength[first] == max(strength.values())


def test_layers_and_positions_of_a_column_of_heads(browser: Browser, numbers: Any, page: Path) -> None:
    browser.open(page)
    choose(browser, "view", "layers")
    browser.run(
        "const menu = document.getElementById('column'); menu.value = '5'; menu.dispatchEvent(new Event('change'))"
    )
    places = numbers["prompts"][0]["places"]
    assert len(browser.all(".cell")) == LAYERS * len(places)
    kl = places[3]["lens"]["kl"][HEADS * 2 + 5] / 1000
    cell = browser.one(f"[data-cell='{HEADS * 2 + 5}'][data-at='3']")
    assert f"{kl:.2f}" in cell.text and f"KL to the model {kl:.2f}" in cell.get_attribute("aria-label")
    cell.click()
    assert browser.one("#head").text == "Layer 2, head 5"


def test_layers_and_positions_of_the_model(browser: Browser, numbers: Any, page: Path) -> None:
    browser.open(page)
    choose(browser, "view", "layers")  # the logit lens comes first
    places = numbers["prompts"][0]["places"]
    assert len(browser.all(".cell")) == LAYERS * len(places)
    for layer, place in ((0, 1), (7, 4)):
        stream = places[place]["stream"]
        cell = browser.one(f"[data-layer='{layer}'][data-at='{place}']")
        assert f"after layer {layer}, position {place} " in cell.get_attribute("aria-label")
        assert f"KL to the model {stream['kl'][layer] / 1000:.2f}" in cell.get_attribute("aria-label")
        cell.click()
        assert browser.one("#head").text == f"The model after layer {layer}"
        shown = [word.text for word in browser.all("[data-list=stream] tbody .word")]
        tokens = [numbers["tokens"][token][0] for token in stream["lists"]["lift"][layer][::2]]
        assert [token.replace("\u2423", " ") for token in shown] == [*tokens, "door"]
    assert [table.get_attribute("data-list") for table in browser.all("#lists table")] == ["stream", "model"]
    assert browser.all("input[value=written]:not([hidden])")[0].is_displayed() is False
    choose(browser, "figure", "probability")
    assert "Probability of" in browser.one("#meaning").text


def test_effects_stand_beside_what_heads_write(browser: Browser, numbers: Any, page: Path) -> None:
    browser.open(page)
    choose(browser, "figure", "effect")
    effect = numbers["prompts"][0]["places"][-1]["effect"]
    texts = [cell.text for cell in browser.all(".cell")]
    for cell in (0, HEADS, HEADS + 1):
        logit = effect["kept"][0][cell]
        shown = "\u2013" if logit is None else f"{logit / 1000:+.2f}"
        assert texts[cell] == shown
    assert {texts[0], texts[1]} == {"\u2013"}  # no effect lens was fitted there
    browser.one(f"[data-cell='{HEADS + 1}']").click()
    for name in ("raised", "lowered"):
        shown = [cell.text for cell in browser.all(f"[data-list=effect-{name}] tbody .text")]
        expected = [value / 1000 for value in effect[name][HEADS + 1][1::2]]
        assert [float(text) for text in shown[: len(expected)]] == pytest.approx(expected, abs=0.0056)
    browser.one("[data-cell='0']").click()
    assert "there is no effect lens of this head" in browser.one("[data-list=effect-raised]").text
    button = browser.all("[data-list=raised] button.word")[0]
    button.click()
    assert browser.one("input[name=figure]:checked").get_attribute("value") == "written"


def test_two_prompts_and_their_difference(browser: Browser, numbers: Any, page: Path) -> None:
    browser.open(page)
    choose(browser, "view", "pair")
    choose(browser, "figure", "written")
    assert len(browser.all(".cell")) == 3 * LAYERS * HEADS
    browser.one("#other-tokens [data-other='1']").click()
    a, b = (numbers["prompts"][0]["places"][-1], numbers["prompts"][1]["places"][1])
    for cell in (0, 17):
        values = [place["written"]["kept"][0][cell] / 1000 for place in (a, b)]
        labels = [
            browser.one(f"[data-cell='{cell}'][data-side='{side}']").get_attribute("aria-label")
            for side in ("A", "B", "B \u2212 A")
        ]
        shown = [float(re.findall(r": ([+-][\d.]+)", label)[0]) for label in labels]
        assert shown == pytest.approx([*values, values[1] - values[0]], abs=0.0056)
    assert [table.get_attribute("data-of") for table in browser.all("[data-list=lens]")] == ["A", "B"]
    browser.one("[data-cell='17'][data-side='B']").click()
    assert len(browser.all(".cell[aria-pressed=true]")) == 3
    choose(browser, "figure", "lift")
    assert "B ÷ A" in browser.one("#grid thead").text


def test_turns_of_a_conversation_stand_apart(browser: Browser, numbers: Any, tmp_path: Path) -> None:
    turns = {"turns": [["user", 0], ["assistant", 3]]}
    prompts = [{**numbers["prompts"][0], **turns}, numbers["prompts"][1]]
    (tmp_path / "turns.html").write_text(reading_page.to_html({**numbers, "prompts": prompts}))
    browser.open(tmp_path / "turns.html")
    order = "return [...document.querySelectorAll('#tokens > *')].map((part) => part.className)"
    assert browser.run(order) == ["turn", *["piece"] * 3, "turn", *["piece"] * 2]
    assert [turn.text for turn in browser.all(".turn")] == ["user", "assistant"]
    tops = browser.run(
        "return [...document.querySelectorAll('#tokens .piece')].map((piece) => piece.offsetTop)"
    )
    assert tops[0] == tops[2] < tops[3] == tops[4]
    assert browser.poor_contrast() == []


@pytest.mark.parametrize("view", ["heads", "token", "layers", "pair"])
def test_a_link_restores_the_view(browser: Browser, page: Path, tmp_path: Path, view: str) -> None:
    browser.open(page)
    choose(browser, "view", view)
    choose(browser, "figure", "lift")
    browser.all("#tokens button")[2].click()
    cell = browser.all(".cell")[42]
    position = cell.get_attribute("data-at") or "2"
    cell.click()
    seen = (
        "return [location.hash, document.getElementById('head').textContent, document.getElementById('after').textContent, "
        "document.getElementById('grid').outerHTML.replace(/ tabindex=\"[^\"]*\"/g, ''), document.getElementById('meaning').textContent]"
    )
    before = browser.run(seen)
    assert f"view={view}" in before[0] and f"position={position}" in before[0] and "colour=lift" in before[0]
    assert browser.one("#link").get_attribute("href").endswith(before[0])
    browser.driver.get("about:blank")
    browser.driver.get(page.absolute().as_uri() + before[0])
    assert browser.run(seen) == before
    browser.driver.get(page.absolute().as_uri() + "#view=none&position=99&head=x&token=a&layer=77")
    assert browser.one("input[name=view]:checked").get_attribute("value") in ("heads", view)
