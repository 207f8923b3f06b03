"""The page of `alens read --html` as people use it, in headless Chromium, beside the JSON of the same reading."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from alens.pictures import page as frame
from alens.pictures import reading_page

from ..page_data import enlarged, held
from .conftest import Browser

pytestmark = pytest.mark.slow

PROMPTS = ("He took her hand and", "Then </script><b>x</b>\n🙂 naïve")
TOP = 4
ROUNDED = 0.0056
"""The page has thousandths of a nat and shows hundredths."""
ASKED = ("--token", "door", "--position", "all", "--top", TOP, "--json")


@pytest.fixture(scope="module")
def page(demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from alens import cli

    file = tmp_path_factory.mktemp("page") / "reading.html"
    given = (
        "read",
        demo_lenses,
        *PROMPTS,
        "--token",
        "door",
        "--top",
        TOP,
        "--compare",
        "all",
        "--html",
        file,
    )
    assert cli.run([str(word) for word in given]) == 0
    return file


@pytest.fixture
def readings(demo_lenses: Path, run_alens: Any) -> dict[str, Any]:
    """By ranking: the readings of all prompts as JSON."""
    return {
        rank: json.loads(run_alens("read", demo_lenses, *PROMPTS, *ASKED, "--rank", rank).stdout)
        for rank in ("lift", "probability")
    }


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Any:
    """Whatever a test does, the page complains of nothing and fetches nothing."""
    browser.complaints()
    yield
    assert browser.complaints() == []
    assert browser.fetched() == []


def visible(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "\\n")


def head_of(reading: Any, position: int, layer: int, head: int) -> Any:
    (reading,) = [
        h for h in reading["heads"] if (h["position"], h["layer"], h["head"]) == (position, layer, head)
    ]
    return reading


def rows(browser: Browser, name: str) -> list[list[str]]:
    """The cells of a list of the page."""
    script = "return [...arguments[0].tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    texts: list[list[str]] = browser.run(script, browser.one(f"[data-list={name}]"))
    return texts


def number(text: str) -> float:
    text = text.rstrip("%\u00d7").replace(",", "")
    worth = {"k": 1e3, "M": 1e6}.get(text[-1], 1.0)
    return worth * float(text.rstrip("kM").removeprefix("<"))


def assert_shows(shown: list[list[str]], scores: list[Any], terms: list[Any]) -> None:
    """A list of the page holds the entries of the JSON, rounded, and the chosen terms below."""
    assert [row[0] for row in shown] == [visible(s["token"]) for s in scores] + [t["term"] for t in terms]
    for row, score in zip(shown, [*scores, *terms], strict=True):
        assert number(row[1]) == pytest.approx(100 * score["probability"], rel=0.1, abs=0.051)
        assert number(row[2]) == pytest.approx(score["lift"], rel=0.1, abs=0.051)


def choose(browser: Browser, name: str, value: str) -> None:
    browser.one(f"input[name={name}][value={value}]").click()


def cells(browser: Browser) -> list[tuple[str, str]]:
    """Number and colour of each cell."""
    script = "return [...document.querySelectorAll('.cell')].map((c) => [c.querySelector('.number').textContent, c.style.backgroundColor])"
    return [tuple(pair) for pair in browser.run(script)]


def test_a_click_shows_the_lists_of_that_head(browser: Browser, page: Path, readings: dict[str, Any]) -> None:
    browser.open(page)
    reading = readings["lift"][0]
    last = reading["positions"][-1]
    for cell, (layer, head) in enumerate([(0, 1), (0, 4), (3, 1), (3, 4)]):
        browser.one(f"[data-cell='{cell}']").click()
        assert browser.one("#head").text == f"Layer {layer}, head {head}"
        assert browser.one("#after").text == f"next token after “{PROMPTS[0]}”"
        assert browser.one(".cell[aria-pressed=true]").get_attribute("data-cell") == str(cell)
        record = head_of(reading, last, layer, head)
        assert_shows(rows(browser, "lens"), record["lens"], record["lens_terms"])
        assert_shows(rows(browser, "unembedding"), record["unembedding"], record["unembedding_terms"])
        kl, entropy = record["lens_kl"], record["lens_entropy"]
        caption = browser.one("[data-list=lens] caption").text
        said = [float(figure) for figure in re.findall(r"\d+\.\d+", caption)]
        assert said == pytest.approx([kl, reading["mean_output_kl"][str(last)], entropy], abs=ROUNDED)
        assert ("▲" in caption) == (kl > reading["mean_output_kl"][str(last)])
    model = reading["model"][str(last)], reading["model_terms"][str(last)]
    assert_shows(rows(browser, "model"), *model)


def test_the_ranking_of_the_lists_can_be_changed(
    browser: Browser, page: Path, readings: dict[str, Any]
) -> None:
    browser.open(page)
    browser.one("[data-cell='2']").click()
    choose(browser, "rank", "probability")
    reading = readings["probability"][0]
    head = head_of(reading, reading["positions"][-1], 3, 1)
    assert_shows(rows(browser, "lens"), head["lens"], head["lens_terms"])
    other = head_of(readings["lift"][0], reading["positions"][-1], 3, 1)
    assert [s["id"] for s in other["lens"]] != [s["id"] for s in head["lens"]]


@pytest.mark.parametrize("which", ["lens", "unembedding"])
def test_the_figure_of_the_grid_can_be_chosen(
    browser: Browser, page: Path, readings: dict[str, Any], which: str
) -> None:
    browser.open(page)
    choose(browser, "reading", which)
    reading = readings["lift"][0]
    heads = [head for head in reading["heads"] if head["position"] == reading["positions"][-1]]
    nothing = reading["mean_output_kl"][str(reading["positions"][-1])]
    seen = set()
    for figure in ("kl", "entropy"):
        choose(browser, "figure", figure)
        drawn = cells(browser)
        expected = [head[f"{which}_{figure}"] for head in heads]
        assert [float(text.removeprefix("▲ ")) for text, _ in drawn] == pytest.approx(expected, abs=ROUNDED)
        lowest = min(range(4), key=lambda c: heads[c][f"{which}_{figure}"])
        if figure == "entropy" or expected[lowest] < nothing:
            assert drawn[lowest][1] == "rgb(12, 61, 117)"  # the strong end: near the model, sure
        seen.add(tuple(colour for _, colour in drawn))
    for figure in ("probability", "lift"):  # of the term that was asked for, at first
        choose(browser, "figure", figure)
        drawn = cells(browser)
        for (text, _), head in zip(drawn, heads, strict=True):
            share = head[f"{which}_terms"][0][figure] * (100 if figure == "probability" else 1)
            assert number(text) == pytest.approx(share, rel=0.1, abs=0.051)
        seen.add(tuple(colour for _, colour in drawn))
    assert len(seen) == 4


def test_the_grid_shows_what_heads_write_around_zero(
    browser: Browser, page: Path, readings: dict[str, Any]
) -> None:
    browser.open(page)
    reading = readings["lift"][0]
    heads = [head for head in reading["heads"] if head["position"] == reading["positions"][-1]]
    choose(browser, "figure", "written")
    logits = [head["written_terms"][0]["logit"] for head in heads]
    drawn = cells(browser)
    assert [float(text) for text, _ in drawn] == pytest.approx(logits, abs=ROUNDED)
    reds, blues = ([int(re.findall(r"\d+", colour)[part]) for _, colour in drawn] for part in (0, 2))
    for red, blue, logit in zip(reds, blues, logits, strict=True):
        assert (blue >= red) if logit > 0.01 else (red >= blue) if logit < -0.01 else True
    low, high = (float(browser.one(f"#{end}").text) for end in ("low", "high"))
    assert -low == high == pytest.approx(max(0.1, *map(abs, logits)), abs=ROUNDED)
    assert browser.one("#readings").get_attribute("disabled")
    choose(browser, "figure", "kl")
    for cell, head in enumerate(heads):
        browser.one(f"[data-cell='{cell}']").click()
        for name, sign in (("raised", 1), ("lowered", -1)):
            shown = rows(browser, name)
            expected = [(visible(one["token"]), one["logit"]) for one in head["written"][name]]
            expected += [
                (t["term"], t["logit"]) for t in head["written_terms"] if (t["logit"] >= 0) == (sign > 0)
            ]
            assert [row[0] for row in shown] == [token for token, _ in expected]
            assert [float(row[1]) for row in shown] == pytest.approx([x for _, x in expected], abs=ROUNDED)
    button = browser.all("[data-list=lowered] button.word")[0]
    token = button.text
    button.click()
    assert browser.one("input[name=figure]:checked").get_attribute("value") == "written"
    assert Select(browser.one("#token")).first_selected_option.text == token
    assert float(cells(browser)[3][0]) == pytest.approx(
        heads[3]["written"]["lowered"][0]["logit"], abs=ROUNDED
    )


def test_a_token_that_a_head_knows_and_suppresses_is_marked(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    numbers = held(page.read_text())
    last = numbers["prompts"][0]["places"][-1]
    token = last["kept"][1]
    last["written"]["suppressed"] = [[], [token, -1500], [], []]
    last["written"]["kept"][1] = [100, -1500, 0, 200]
    (tmp_path / "set.html").write_text(reading_page.to_html(numbers))
    browser.open(tmp_path / "set.html")
    choose(browser, "figure", "written")
    Select(browser.one("#token")).select_by_value(str(token))
    assert [cell.text.split("\n")[1:] for cell in browser.all(".cell")] == [[], ["knows it"], [], []]
    assert "knows, and suppresses" in browser.one("[data-cell='1']").get_attribute("aria-label")
    browser.one("[data-cell='1']").click()
    shown = visible(numbers["tokens"][token][0])
    assert browser.one("#suppressed").text == f"Knows, and suppresses: {shown} -1.50"
    browser.one("[data-cell='0']").click()
    assert browser.one("#suppressed").text == ""


def test_a_page_without_what_heads_write_says_why(browser: Browser, page: Path, tmp_path: Path) -> None:
    numbers = {**held(page.read_text()), "no_write": "nobody knows"}
    for place in (place for prompt in numbers["prompts"] for place in prompt["places"]):
        place["written"] = None
    (tmp_path / "none.html").write_text(reading_page.to_html(numbers))
    browser.open(tmp_path / "none.html")
    assert browser.one("#writes").text == "What the heads write is left out: nobody knows."
    assert browser.all("input[value=written]") == browser.all("[data-list=raised]") == []


def test_a_token_can_be_chosen_from_the_menu_and_from_a_list(
    browser: Browser, page: Path, readings: dict[str, Any]
) -> None:
    browser.open(page)
    browser.one("[data-cell='3']").click()
    menu = Select(browser.one("#token"))
    reading = readings["lift"][0]
    last = reading["positions"][-1]
    heads = [head for head in reading["heads"] if head["position"] == last]
    listed = {visible(s["token"]) for h in heads for name in ("lens", "unembedding") for s in h[name]}
    assert {"door", *listed} <= {option.text for option in menu.options}
    own = reading["model"][str(last)][0]
    menu.select_by_visible_text(visible(own["token"]))
    assert browser.one("input[name=figure]:checked").get_attribute("value") == "lift"
    assert visible(own["token"]) in browser.one("#meaning").text
    shown = next(score for score in heads[3]["lens"])
    choose(browser, "figure", "kl")
    button = browser.all("[data-list=lens] button.word")[0]
    assert button.text == visible(shown["token"])
    button.click()
    assert Select(browser.one("#token")).first_selected_option.text == visible(shown["token"])
    assert number(cells(browser)[3][0]) == pytest.approx(shown["lift"], rel=0.05)
    assert browser.run("return document.activeElement.textContent") == visible(shown["token"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_head_above_the_mean_output_is_marked_and_has_another_colour(
    browser: Browser, page: Path, tmp_path: Path, scheme: str
) -> None:
    numbers = held(page.read_text())
    last = numbers["prompts"][0]["places"][-1]
    last["lens"]["kl"], last["mean_output_kl"] = [1000, 2400, 2600, 4000], 2500
    (tmp_path / "set.html").write_text(reading_page.to_html(numbers))
    browser.open(tmp_path / "set.html", scheme=scheme)
    drawn = cells(browser)
    assert [text for text, _ in drawn] == ["1.00", "2.40", "▲ 2.60", "▲ 4.00"]
    reds, blues = ([int(re.findall(r"\d+", colour)[part]) for _, colour in drawn] for part in (0, 2))
    assert [blue > red for red, blue in zip(reds, blues, strict=True)] == [True, True, False, False]
    labels = [cell.get_attribute("aria-label") for cell in browser.all(".cell")]
    assert ["above the mean output" in label for label in labels] == [False, False, True, True]
    assert "The mean output, which looks at nothing, has 2.50 here" in browser.one("#meaning").text


def test_a_lens_that_says_nothing_is_never_shown_without_its_mark(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    numbers = held(page.read_text())
    numbers["says_nothing"] = [False, True, False, False]
    (tmp_path / "set.html").write_text(reading_page.to_html(numbers))
    browser.open(tmp_path / "set.html")
    for figure in ("kl", "entropy", "probability", "lift"):
        choose(browser, "figure", figure)
        marked = ["! nothing" in cell.text for cell in browser.all(".cell")]
        assert marked == [False, True, False, False]
        labels = [cell.get_attribute("aria-label") for cell in browser.all(".cell")]
        assert [numbers["nothing_means"] in label for label in labels] == marked
        assert browser.poor_contrast() == []
    for cell, says in ((1, True), (2, False)):
        browser.one(f"[data-cell='{cell}']").click()
        assert browser.one("#nothing").text == (f"! The lens {numbers['nothing_means']}." if says else "")
    choose(browser, "reading", "unembedding")  # it has no lens, so nothing to mark
    assert not any("! nothing" in cell.text for cell in browser.all(".cell"))


def test_position_and_prompt_can_be_chosen(browser: Browser, page: Path, readings: dict[str, Any]) -> None:
    browser.open(page)
    Select(browser.one("#prompt")).select_by_index(1)
    reading = readings["lift"][1]
    assert [piece.text for piece in browser.all("#tokens .piece")] == [visible(t) for t in reading["tokens"]]
    for position in (len(reading["tokens"]) - 1, 2):
        browser.one(f"[data-place='{position}']").click()
        browser.one("[data-cell='1']").click()
        head = head_of(reading, position, 0, 4)
        assert_shows(rows(browser, "lens"), head["lens"], head["lens_terms"])
    assert browser.all("b") == []  # what a prompt says is text


def test_the_keyboard_is_enough(browser: Browser, page: Path, readings: dict[str, Any]) -> None:
    browser.open(page)

    def press(*keys: str) -> None:
        for key in keys:
            browser.driver.switch_to.active_element.send_keys(key)

    def focused(name: str) -> Any:
        return browser.driver.switch_to.active_element.get_attribute(name)

    def tab_to(name: str) -> None:
        for _ in range(20):
            press(Keys.TAB)
            if focused(name) is not None:
                return
        raise AssertionError(f"Tab never comes to {name}")

    browser.one("body").send_keys(Keys.TAB)
    tab_to("data-place")
    assert focused("data-place") == "4"
    press(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ENTER)
    assert focused("data-place") == "1" and focused("aria-pressed") == "true"
    tab_to("data-cell")
    for key in (Keys.ARROW_UP, Keys.ARROW_UP, Keys.HOME, Keys.ARROW_LEFT):  # not out of the grid
        press(key)
    assert focused("data-cell") == "0"
    for key, cell in (
        (Keys.ARROW_DOWN, 2),
        (Keys.END, 3),
        (Keys.ARROW_UP, 1),
        (Keys.HOME, 0),
        (Keys.ARROW_RIGHT, 1),
    ):
        press(key)
        assert focused("data-cell") == str(cell)
    assert len(browser.all(".cell[tabindex='0']")) == 1
    outline = "return getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    assert browser.run(outline) == "solid3px"
    press(Keys.ENTER)
    assert focused("data-cell") == "1"
    head = head_of(readings["lift"][0], 1, 0, 4)
    assert_shows(rows(browser, "lens"), head["lens"], head["lens_terms"])
    label = focused("aria-label")
    assert label.startswith("layer 0, head 4: KL to the model ")
    assert label.endswith(f", first token {visible(head['lens'][0]['token'])}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
def test_it_can_be_read_on_a_laptop_and_a_phone_by_day_and_night(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    browser.open(page, width=width, height=700, scheme=scheme)
    grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == grounds[scheme]
    for figure in ("kl", "entropy", "probability", "lift", "written"):
        choose(browser, "figure", figure)
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
        assert browser.poor_contrast() == []
    assert browser.run(
        "return [...document.querySelectorAll('.cell')].every((c) => c.offsetWidth >= 44 && c.offsetHeight >= 44)"
    )


@pytest.mark.parametrize("width", [1366, 360])
def test_a_grid_of_many_heads_scrolls_in_its_box(
    browser: Browser, page: Path, tmp_path: Path, width: int
) -> None:
    """A page like that of a model with 32 heads a layer, made by repeating two heads."""
    numbers = enlarged(held(page.read_text()), layers=2, heads=32)
    (tmp_path / "wide.html").write_text(reading_page.to_html(numbers))
    browser.open(tmp_path / "wide.html", width=width)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(
        "const box = document.getElementById('scroll'); return box.scrollWidth > box.clientWidth"
    )
    browser.one("[data-cell='63']").click()  # what is out of sight can be reached, and stays in sight
    assert browser.one("#head").text == "Layer 1, head 31"
    assert browser.run("return document.getElementById('scroll').scrollLeft") > 0


def test_lenses_without_a_mean_output_have_no_lift_in_the_page(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """Lenses of a site of the residual stream have no heads either."""
    numbers = {
        **held(page.read_text()),
        "rank": "probability",
        "ranks": ["probability"],
        "site": "resid_post",
        "no_write": "these are lenses of resid_post, not of heads",
    }
    numbers["tokens"] = [[text, None] for text, _ in numbers["tokens"]]
    for place in (place for prompt in numbers["prompts"] for place in prompt["places"]):
        place["mean_output_kl"] = place["written"] = None
    (tmp_path / "none.html").write_text(reading_page.to_html(numbers))
    browser.open(tmp_path / "none.html")
    assert browser.all("input[value=lift]") == [] and browser.all(".lift-of") == []
    assert "there is no lift" in browser.one("#notes").text
    assert "do not hold the mean output" in browser.one("#meaning").text
    assert "mean output" not in browser.one("[data-list=lens] caption").text
    browser.one("[data-cell='3']").click()
    assert browser.one("#head").text == "Layer 3, resid_post"
    browser.all("[data-list=lens] button.word")[0].click()
    assert browser.one("input[name=figure]:checked").get_attribute("value") == "probability"
    assert browser.one(".cell[aria-pressed=true]").text == rows(browser, "lens")[0][1]


def test_a_change_of_the_colour_scheme_is_followed(browser: Browser, page: Path) -> None:
    browser.open(page, scheme="light")
    before = cells(browser)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.wait_until(lambda: [colour for _, colour in cells(browser)] != [colour for _, colour in before])
    assert [text for text, _ in cells(browser)] == [text for text, _ in before]
    assert browser.poor_contrast() == []


def test_the_page_cannot_fetch(browser: Browser, page: Path) -> None:
    browser.open(page)
    script = "const done = arguments[0]; fetch('https://example.com/').then(() => done('fetched'), () => done('refused'))"
    assert browser.driver.execute_async_script(script) == "refused"
    said = [entry["message"] for entry in browser.complaints()]
    assert said and all("Content Security Policy" in message for message in said)


def test_a_large_page_shows_what_it_holds(
    browser: Browser, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers are compressed."""
    monkeypatch.setattr(frame, "COMPRESSED_FROM", 0)
    (tmp_path / "large.html").write_text(reading_page.to_html(held(page.read_text())))
    assert 'type="application/gzip"' in (tmp_path / "large.html").read_text()
    browser.open(page)
    small = cells(browser)
    browser.open(tmp_path / "large.html")
    browser.wait_until(lambda: browser.all(".cell"))
    assert cells(browser) == small


def test_the_prompt_is_shaded_by_where_the_chosen_head_looks(
    browser: Browser, page: Path, readings: dict[str, Any]
) -> None:
    browser.open(page)
    reading = readings["lift"][0]
    last = len(reading["tokens"]) - 1
    for cell in (3, 0):
        browser.one(f"[data-cell='{cell}']").click()
        (head,) = [h for h in reading["heads"] if h["position"] == last][cell : cell + 1]
        for shade, name in (("looks", "weights"), ("moves", "moved")):
            choose(browser, "shade", shade)
            values = head["attention"][name]
            strongest = max(range(len(values)), key=values.__getitem__)
            shown = visible(reading["tokens"][strongest])
            assert re.match(rf".* {strongest} .{re.escape(shown)}. [\d.]+%", browser.one("#sources").text)
            grounds = [piece.value_of_css_property("background-color") for piece in browser.all(".piece")]
            light = [sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds]
            assert min(range(len(light)), key=light.__getitem__) == strongest
            assert browser.poor_contrast() == []
    browser.all("#tokens .piece")[1].click()  # what comes after a position has no shade
    shaded = [piece.get_attribute("style") != "" for piece in browser.all(".piece")]
    assert shaded == [True, True] + [False] * (last - 1)
    choose(browser, "shade", "none")
    assert not any(piece.get_attribute("style") for piece in browser.all(".piece"))
    assert browser.one("#sources").text == ""
